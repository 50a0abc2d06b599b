/** Rows that wait for the server, in IndexedDB: they outlive the tab and are sent again until the server has them. */

import { batch, computed, signal } from "@preact/signals";
import * as api from "../api";
import type { FrameMarks, Row } from "../types";
import { complain, say } from "./live";

interface Entry {
  project: string;
  rater: string;
  row: Row;
}

export type Line = "on" | "away" | "locked" | "full";

export const waiting = signal<readonly Entry[]>([]);
export const line = signal<Line>("on");
export const kept = signal(true); // false where this browser keeps nothing
export const saved = computed(() => waiting.value.length === 0);

let database: Promise<IDBDatabase | null> | null = null;
let onSaved: (frames: FrameMarks[], rater: string) => void = () => undefined;
let sending: Promise<void> | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let pause = 500;

function open(): Promise<IDBDatabase | null> {
  database ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("ultraad", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("rows", { keyPath: "row.id" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return database;
}

async function change(work: (store: IDBObjectStore) => void): Promise<void> {
  const db = await open();
  if (!db) {
    kept.value = false;
    return;
  }
  await new Promise<void>((resolve) => {
    const transaction = db.transaction("rows", "readwrite", { durability: "strict" });
    work(transaction.objectStore("rows"));
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () => {
      kept.value = false;
      resolve();
    };
  });
}

/** Takes up what an earlier tab could not send, and sends it. */
export async function start(project: string, heard: typeof onSaved): Promise<void> {
  onSaved = heard;
  const db = await open();
  if (db) {
    const left = await new Promise<Entry[]>((resolve) => {
      const request = db.transaction("rows").objectStore("rows").getAll();
      request.onsuccess = () => resolve(request.result as Entry[]);
      request.onerror = () => resolve([]);
    });
    const mine = left.filter((e) => e.project === project).sort((a, b) => (a.row.made < b.row.made ? -1 : 1));
    waiting.value = [...mine, ...waiting.value];
    if (mine.length) say(`${mine.length} marks from before are being saved`);
  } else kept.value = false;
  void flush();
}

/** Keeps the rows and sends them. Returns at once: the rows are on the screen before they are saved. */
export function push(project: string, rater: string, rows: readonly Row[]): void {
  const fresh = rows.map((row) => ({ project, rater, row }));
  waiting.value = [...waiting.value, ...fresh];
  void change((store) => {
    for (const entry of fresh) store.put(entry);
  });
  void flush();
}

/** Done when nothing waits any more or the server is away. */
export async function flush(): Promise<void> {
  sending ??= sendAll().finally(() => {
    sending = null;
  });
  await sending;
  if (waiting.value.length && line.value === "on" && retry === undefined) await flush(); // pushed at the last moment
}

async function sendAll(): Promise<void> {
  clearTimeout(retry);
  retry = undefined;
  let most = 100;
  while (waiting.value.length) {
    const { rater } = waiting.value[0]!;
    const next = waiting.value.slice(0, most);
    const last = next.findIndex((e) => e.rater !== rater);
    const part = last < 0 ? next : next.slice(0, last);
    try {
      const answer = await api.save(
        rater,
        part.map((e) => e.row),
      );
      line.value = "on";
      pause = 500;
      for (const result of answer.saved) if (result.status === "refused") complain(new Error(result.reason ?? "refused"));
      done(part, answer.frames);
    } catch (error) {
      if (error instanceof api.ApiError && error.status === 401) {
        line.value = "locked";
        return;
      }
      if (error instanceof api.ApiError && error.status < 500 && error.status !== 429) {
        if (part.length > 1) {
          most = 1; // find the row the server cannot take
          continue;
        }
        complain(error);
        done(part, []);
        continue;
      }
      if (error instanceof api.Offline) line.value = "away";
      else if (error instanceof api.ApiError && error.status === 507) line.value = "full";
      else complain(error);
      retry = setTimeout(() => void flush(), pause);
      pause = Math.min(8000, pause * 2);
      return;
    }
  }
}

function done(part: readonly Entry[], frames: FrameMarks[]): void {
  const ids = new Set(part.map((e) => e.row.id));
  batch(() => {
    onSaved(frames, part[0]!.rater);
    waiting.value = waiting.value.filter((e) => !ids.has(e.row.id));
  });
  void change((store) => {
    for (const id of ids) store.delete(id);
  });
}

addEventListener("beforeunload", (event) => {
  if (waiting.value.length && !kept.value) event.preventDefault(); // only where they would be lost
});
