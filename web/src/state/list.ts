/** The images in the order of the query, which changes on request only; those that are looked at are loaded. */

import { batch, signal, type Signal } from "@preact/signals";
import * as api from "../api";
import type { Item, Query } from "../types";
import { complain } from "./live";

const PART = 200; // images of one request

export const FIRST: Query = {
  sort: "added",
  order: "asc",
  search: "",
  class: "",
  patient: "",
  device: "",
  state: "",
};

/** Images, Look and the review each keep their own query and place; Mark walks through the one used last. */
export type Scope = "images" | "look" | "review";

interface Kept {
  scope: Scope;
  queries: Partial<Record<Scope, Query>>;
  places: Partial<Record<Scope, number>>;
}

const KEY = "ultraad.list";

function stored(): Kept {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Kept | null;
    if (found) return found;
  } catch {
    // no storage: the first query
  }
  return { scope: "images", queries: {}, places: {} };
}

const kept = stored();

export const scope = signal<Scope>(kept.scope);
export const query = signal<Query>(kept.queries[kept.scope] ?? FIRST);
export const total = signal<number | null>(null);
export const arrived = signal(0); // counts answers, so that views look again
export const stale = signal(false); // scores or marks changed since the order was made
export const lastPlace = signal(kept.places[kept.scope] ?? 0); // the way back leads there

function keep(): void {
  kept.scope = scope.value;
  kept.queries[scope.value] = query.value;
  kept.places[scope.value] = lastPlace.value;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // lasts until the page is loaded again
  }
}

export function remember(index: number): void {
  lastPlace.value = index;
  keep();
}

/** Shows the list of a view as it was left there; `first` if it was never shown. */
export function adopt(next: Scope, first: Partial<Query> = {}): Promise<void> {
  if (scope.value !== next) {
    batch(() => {
      scope.value = next;
      query.value = kept.queries[next] ?? { ...FIRST, ...first };
      lastPlace.value = kept.places[next] ?? 0;
    });
    keep();
  }
  return reload(lastPlace.value);
}

let order: readonly string[] = [];
let stop = new AbortController();
const items = new Map<string, Signal<Item>>();
const underway = new Set<string>();
const old = new Set<string>(); // images whose scores changed since they were loaded
let drawn: [first: number, last: number] = [0, 0];

export function setQuery(change: Partial<Query>): Promise<void> {
  query.value = { ...query.value, ...change };
  remember(0);
  return reload();
}

/** Asks for a new order and the images around a place; the old order stays on the screen until the answer is there. */
export async function reload(around = 0): Promise<void> {
  stop.abort();
  stop = new AbortController();
  const { signal: until } = stop;
  try {
    const answer = await api.images(query.value, Math.max(0, around - PART / 2), PART, until);
    if (until.aborted) return;
    batch(() => {
      order = answer.order;
      stale.value = false;
      total.value = answer.total;
      answer.items.forEach(put);
      arrived.value++;
    });
    need(...drawn);
  } catch (error) {
    if (!until.aborted) complain(error);
  }
}

/** Places that are drawn now are loaded, with time also those around them; what is out of date is renewed. */
export function need(first: number, last: number, ahead = false): void {
  drawn = [first, last];
  const more = ahead ? PART / 2 : 0;
  const wanted = order.slice(Math.max(0, first - more), last + more).filter((id) => !items.has(id) || old.has(id));
  const fresh = wanted.filter((id) => !underway.has(id));
  if (fresh.length) void fetch(fresh).catch(complain);
}

/** Another model counts: what is looked at is asked for again, now or when it comes into sight. */
export function outdate(): void {
  for (const id of items.keys()) old.add(id);
  stale.value = true;
  need(...drawn);
}

/** The image at a place, loaded if need be; null behind the ends. */
export async function ensure(index: number): Promise<Item | null> {
  if (total.value === null) await reload(index);
  const id = order[index];
  if (id === undefined) return null;
  await fetchItem(id);
  return items.get(id)?.value ?? null;
}

async function fetch(ids: readonly string[]): Promise<void> {
  for (const id of ids) underway.add(id);
  try {
    for (let i = 0; i < ids.length; i += PART) {
      const answer = await api.imagesById(ids.slice(i, i + PART));
      batch(() => {
        answer.items.forEach(put);
        arrived.value++;
      });
    }
  } finally {
    for (const id of ids) underway.delete(id);
  }
}

export function put(item: Item): void {
  old.delete(item.id);
  const known = items.get(item.id);
  if (known) known.value = item;
  else items.set(item.id, signal(item));
}

export const idAt = (index: number): string => order[index] ?? `place ${index}`;

/** The image at a place of the order; null while it is on the way. */
export function at(index: number): Signal<Item> | null {
  const id = order[index];
  return id === undefined ? null : (items.get(id) ?? null);
}

/** The images at some places, as far as they are known. */
export function places(first: number, last: number): { image: string; frame: number }[] {
  const found = order.slice(first, last).map((id) => items.get(id)?.value);
  return found.flatMap((item) => (item ? [{ image: item.id, frame: item.best }] : []));
}

export const byId = (id: string): Signal<Item> | null => items.get(id) ?? null;

export const placeOf = (id: string): number => order.indexOf(id);

/** New scores and marks for images that were loaded before; the order stays. */
export async function refresh(ids: readonly string[]): Promise<void> {
  const known = ids.filter((id) => items.has(id));
  if (ids.length) stale.value = true;
  if (known.length) await fetch(known);
}

/** The image itself, asked for if it is not known. */
export async function fetchItem(id: string): Promise<void> {
  if (!items.has(id)) await fetch([id]);
}

/** Marks known from an answer are shown on the tile at once. */
export function patch(id: string, change: Partial<Item>): void {
  const known = items.get(id);
  if (known) known.value = { ...known.value, ...change };
}
