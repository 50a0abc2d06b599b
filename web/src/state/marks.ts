/** Marks of frames: the server's, and on top what waits in the outbox. */

import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import * as api from "../api";
import { emptyMarks, fold, type Context } from "../core/fold";
import { uuid } from "../core/uuid";
import type { Detail, FrameMarks, Row } from "../types";
import * as list from "./list";
import { complain, say } from "./live";
import { flush, line, push, waiting } from "./outbox";
import { name } from "./prefs";
import { normal, project, refreshProject } from "./project";

const bases = new Map<string, Signal<FrameMarks | null>>();
const shown = new Map<string, ReadonlySignal<FrameMarks>>();
export const details = new Map<string, Signal<Detail | null>>();

const key = (image: string, frame: number) => `${image}/${frame}`;

function base(image: string, frame: number): Signal<FrameMarks | null> {
  const k = key(image, frame);
  let it = bases.get(k);
  if (!it) bases.set(k, (it = signal<FrameMarks | null>(null)));
  return it;
}

function context(image: string): Context {
  const detail = details.get(image)?.value;
  const item = list.byId(image)?.value;
  return {
    image: { width: detail?.width ?? item?.width ?? 0, height: detail?.height ?? item?.height ?? 0 },
    spacing: detail?.spacing_mm ?? null,
    rater: name(),
    normal: normal.value,
  };
}

/** What is marked on a frame, as far as this tab knows. */
export function marksOf(image: string, frame: number): ReadonlySignal<FrameMarks> {
  const k = key(image, frame);
  let it = shown.get(k);
  if (!it) {
    it = computed(() => {
      const pending = waiting.value.filter((e) => e.row.image === image && e.row.frame === frame).map((e) => e.row);
      return fold(base(image, frame).value ?? emptyMarks(image, frame), pending, context(image));
    });
    shown.set(k, it);
  }
  return it;
}

export async function loadMarks(image: string, frame: number): Promise<void> {
  const told = await api.marks(image, frame, name());
  receive([told], name());
}

/** The server's word on frames; older answers do not replace newer ones. */
export function receive(frames: readonly FrameMarks[], rater: string): void {
  for (const marks of frames) {
    const it = base(marks.image, marks.frame);
    if (it.value && it.value.row > marks.row) continue;
    it.value = rater === name() ? marks : { ...marks, undo: it.value?.undo ?? null, redo: it.value?.redo ?? null };
    const detail = details.get(marks.image);
    if (!detail?.value) continue;
    const frame_items = detail.value.frame_items.map((f) =>
      f.frame === marks.frame ? { ...f, label: marks.label, lesions: marks.lesions.length } : f,
    );
    detail.value = { ...detail.value, frame_items };
  }
}

/** Marks of others, or after a break of the line: frames that were opened here are asked for again. */
export async function catchUp(frames: readonly { image: string; frame: number }[]): Promise<void> {
  for (const { image, frame } of frames) {
    if (base(image, frame).value && !waiting.value.some((e) => e.row.image === image)) await loadMarks(image, frame);
  }
}

let last = 0;

/** Times never repeat, so that rows keep their order. */
function now(): string {
  last = Math.max(Date.now(), last + 1);
  return new Date(last).toISOString();
}

type Content<R> = R extends Row ? Omit<R, "id" | "image" | "frame" | "made"> : never;

/** Adds a row: it is on the screen at once, in IndexedDB a moment later, and saved when the server has it. */
export function add(image: string, frame: number, content: Content<Row>): string {
  const id = uuid();
  const row = { id, image, frame, made: now(), ...content } as Row;
  push(project.value?.id ?? "", name(), [row]);
  return id;
}

let turn: Promise<void> = Promise.resolve();

/** One step back or forward on this frame: a stroke, an acceptance or a label. */
export function step(direction: "undo" | "redo", image: string, frame: number): Promise<void> {
  turn = turn.then(async () => {
    await flush(); // the server names the next step
    if (line.value === "on" && !base(image, frame).value) await loadMarks(image, frame); // just opened
    const marks = marksOf(image, frame).value;
    const target = marks[direction];
    const what = direction === "undo" ? marks.undo_text : marks.redo_text;
    if (!target) {
      say(`Nothing to ${direction} on this image`);
      return;
    }
    const waits = waiting.value.some((e) => e.row.id === target);
    if (line.value !== "on" && !waits) {
      say("The server cannot save now: only what was marked since can be undone");
      return;
    }
    add(image, frame, { kind: direction, target });
    await flush();
    say(`${direction === "undo" ? "Undone" : "Done again"}: ${what ?? "last step"}`);
  });
  return turn.catch(complain);
}

/** A label for the whole image; the same label again takes it back. */
export function label(image: string, frame: number, cls: string): void {
  const before = marksOf(image, frame).value;
  const had = before.label_from === "label" ? before.label : null;
  const item = list.byId(image)?.value;
  const same = had === cls || (before.row === 0 && item?.label === cls && item.lesions === 0);
  add(image, frame, { kind: "label", class: same ? null : cls });
  list.patch(image, { label: same ? null : cls });
  say(same ? `label ${cls} taken back` : `image is ${cls}`);
}

let counting: ReturnType<typeof setTimeout> | undefined;

/** After marks were saved: tiles and the readiness to adapt follow, at most four times a second. */
const due = new Set<string>();
export function follow(images: readonly string[]): void {
  for (const image of images) due.add(image);
  counting ??= setTimeout(() => {
    counting = undefined;
    const ids = [...due];
    due.clear();
    void Promise.all([list.refresh(ids), refreshProject()]).catch(complain);
  }, 250);
}
