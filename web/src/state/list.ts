/** The images in the order of the query. Only pages that were looked at are loaded; the order changes on request only. */

import { batch, signal, type Signal } from "@preact/signals";
import * as api from "../api";
import type { Item, Query } from "../types";
import { complain } from "./live";

const PAGE = 200;

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
export const arrived = signal(0); // counts pages, so that views look again
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

let order: (string | undefined)[] = [];
let asked = new Map<number, Promise<void>>();
let stop = new AbortController();
const items = new Map<string, Signal<Item>>();

export function setQuery(change: Partial<Query>): Promise<void> {
  query.value = { ...query.value, ...change };
  remember(0);
  return reload();
}

/** Asks for a new order; the old one stays on the screen until its first page is there. */
export function reload(first = 0): Promise<void> {
  stop.abort();
  stop = new AbortController();
  asked = new Map();
  return load(Math.floor(first / PAGE), true);
}

export function need(first: number, last: number): void {
  for (let page = Math.floor(first / PAGE); page * PAGE < last; page++) void load(page, false);
}

/** The image at a place, loaded if need be; null behind the ends. */
export async function ensure(index: number): Promise<Item | null> {
  if (index < 0 || (total.value !== null && index >= total.value)) return null;
  if (!at(index)) await load(Math.floor(index / PAGE), total.value === null);
  return at(index)?.value ?? null;
}

async function load(page: number, fresh: boolean): Promise<void> {
  const under = asked.get(page);
  if (under) return under;
  const run = fetchPage(page, fresh);
  asked.set(page, run);
  return run;
}

async function fetchPage(page: number, fresh: boolean): Promise<void> {
  const { signal: until } = stop;
  try {
    const answer = await api.images(query.value, page * PAGE, PAGE, until);
    if (until.aborted) return;
    batch(() => {
      if (fresh) {
        order = [];
        stale.value = false;
      }
      total.value = answer.total;
      order.length = answer.total;
      for (const [i, item] of answer.items.entries()) {
        order[page * PAGE + i] = item.id;
        put(item);
      }
      arrived.value++;
    });
  } catch (error) {
    if (!until.aborted) {
      asked.delete(page);
      complain(error);
    }
  }
}

export function put(item: Item): void {
  const known = items.get(item.id);
  if (known) known.value = item;
  else items.set(item.id, signal(item));
}

/** The image at a place of the order; null while its page is on the way. */
export function at(index: number): Signal<Item> | null {
  const id = order[index];
  return id === undefined ? null : (items.get(id) ?? null);
}

export const byId = (id: string): Signal<Item> | null => items.get(id) ?? null;

export const placeOf = (id: string): number => order.indexOf(id);

/** New scores and marks for images that were loaded before; the order stays. */
export async function refresh(ids: readonly string[]): Promise<void> {
  const known = ids.filter((id) => items.has(id));
  if (ids.length) stale.value = true;
  for (let i = 0; i < known.length; i += PAGE) {
    const answer = await api.imagesById(known.slice(i, i + PAGE));
    batch(() => answer.items.forEach(put));
  }
}

export const loadedIds = (): string[] => [...items.keys()];

/** The image itself, asked for if it was never in a page. */
export async function fetchItem(id: string): Promise<void> {
  if (!items.has(id)) {
    const answer = await api.imagesById([id]);
    answer.items.forEach(put);
  }
}

/** Marks known from an answer are shown on the tile at once. */
export function patch(id: string, change: Partial<Item>): void {
  const known = items.get(id);
  if (known) known.value = { ...known.value, ...change };
}
