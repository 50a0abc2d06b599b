/** The state of Mark: image shown, tool, class, unfinished shape. Finished shapes become rows. */

import { computed, effect, signal } from "@preact/signals";
import * as api from "../api";
import { touched } from "../core/fold";
import { boxOf, closes, farEnough, radiusFor, tidy } from "../core/gesture";
import { WHOLE, type Levels } from "../core/levels";
import { contains } from "../core/measure";
import { uuid } from "../core/uuid";
import type { Point, View } from "../core/view";
import type { Detail, FrameMarks, Lesion, Ring, StrokeTool, Suggestion, Suggestions } from "../types";
import { complain, say } from "./live";
import { add, details, label, loadMarks, marksOf } from "./marks";
import { brush } from "./prefs";
import { lesionClasses, normal } from "./project";

export type Tool = StrokeTool | "select";

export interface Shape {
  tool: StrokeTool;
  points: number[];
  radii: number[];
  pressed: boolean; // a pointer is down
}

/** A box or scribble and the mask that the server's rule makes of it: shown before it counts. */
export interface Proposal {
  tool: "box" | "scribble";
  points: number[];
  radii: number[];
  outline: Ring[];
  rule: string;
}

export const shownFrame = signal<{ image: string; frame: number } | null>(null);
export const detail = computed<Detail | null>(() => {
  const now = shownFrame.value;
  return now ? (details.get(now.image)?.value ?? null) : null;
});
export const marks = computed<FrameMarks | null>(() => {
  const now = shownFrame.value;
  return now ? marksOf(now.image, now.frame).value : null;
});
/** What the model says about the frame shown. */
export const pred = computed(() => {
  const frame = shownFrame.value?.frame;
  return detail.value?.frame_items.find((f) => f.frame === frame)?.pred ?? null;
});
export const hasMap = computed(() => pred.value?.has_map ?? false);
export const offers = signal<Suggestions | null>(null); // of the frame shown
export const threshold = signal<number | null>(null); // for suggestions; null: the model's

export const tool = signal<Tool>("brush");
export const chosenClass = signal<string | null>(null);
export const cls = computed(() => {
  const all = lesionClasses.value;
  return chosenClass.value !== null && all.includes(chosenClass.value) ? chosenClass.value : (all[0] ?? "lesion");
});
export const apart = signal(false);
export const selected = signal<string | null>(null);
export const shape = signal<Shape | null>(null);
export const proposal = signal<Proposal | null>(null);
export const pen = signal<Point | null>(null); // the keyboard's pen, in image pixels
export const hover = signal<Point | null>(null);
export const view = signal<View | null>(null);
export const levels = signal<Levels>(WHOLE);
export const playing = signal<number | null>(null); // frame on the screen while the cine plays
export const mapModel = signal<number | null>(null); // which model the map on the screen is from

export const radius = computed(() => {
  const d = detail.value;
  return d ? Math.max(0.5, tidy((brush.value / 1000) * Math.max(d.width, d.height))) : 8;
});

/** Suggestions that no mark covers. */
export const open = computed(() => offers.value?.suggestions ?? []);

let wanted = 0;

/** Shows a frame; tool, class, zoom of the same image and window stay. */
export async function show(image: string, frame: number): Promise<void> {
  const before = shownFrame.value;
  const turn = ++wanted;
  drop();
  playing.value = null;
  if (before?.image !== image) {
    view.value = null;
    threshold.value = null;
  }
  selected.value = null;
  offers.value = null;
  shownFrame.value = { image, frame };
  let known = details.get(image);
  if (!known) details.set(image, (known = signal<Detail | null>(null)));
  try {
    const [told] = await Promise.all([known.value ?? api.image(image), loadMarks(image, frame)]);
    known.value = told;
    if (turn === wanted) {
      shownFrame.value = { image, frame }; // marks are measured again, now that the size is known
      await refreshOffers();
    }
  } catch (error) {
    if (turn === wanted) complain(error);
  }
}

let offerTurn = 0;

export async function refreshOffers(): Promise<void> {
  const now = shownFrame.value;
  if (!now) return;
  const turn = ++offerTurn;
  const told = hasMap.value ? await api.suggestions(now.image, now.frame, threshold.value ?? undefined) : null;
  if (turn === offerTurn && shownFrame.value === now) offers.value = told;
}

// A change of the marks changes which suggestions are still open.
effect(() => {
  const row = marks.value?.row;
  if (row) void refreshOffers().catch(complain);
});

export const drawing = computed(() => shape.value !== null || proposal.value !== null);

/** Drops the unfinished shape. */
export function drop(): void {
  shape.value = null;
  proposal.value = null;
}

export function takeTool(next: Tool): void {
  drop();
  tool.value = next;
  say(next === "select" ? "select" : `${next}${next === "eraser" ? "" : `, ${cls.value}`}`);
}

export function begin(at: Point, pointer: string, pressure: number): void {
  const now = tool.value;
  const d = detail.value;
  if (!d || now === "select") return;
  proposal.value = null;
  const [x, y] = [tidy(at[0]), tidy(at[1])];
  const old = shape.value;
  if (now === "polygon" && old) {
    shape.value = { ...old, points: [...old.points, x, y], pressed: true };
    return;
  }
  shape.value = { tool: now, points: [x, y], radii: [radiusFor(radius.value, pointer, pressure)], pressed: true };
}

export function extend(at: Point, pointer: string, pressure: number, scale: number): void {
  const old = shape.value;
  if (!old?.pressed) return;
  const [x, y] = [tidy(at[0]), tidy(at[1])];
  if (old.tool === "box") {
    shape.value = { ...old, points: [old.points[0]!, old.points[1]!, x, y] };
    return;
  }
  if (!farEnough(old.points, [x, y], scale)) return;
  old.points.push(x, y);
  old.radii.push(radiusFor(radius.value, pointer, pressure));
  shape.value = { ...old };
}

let closedAt = -Infinity;

/** True for a second after a click closed a polygon: an Enter that was meant to close it accepts nothing else. */
export const justClosed = (): boolean => performance.now() - closedAt < 1000;

/** The pointer was lifted. A polygon goes on until it is closed; a dragged one is a lasso and closes itself. */
export function lift(at: Point, scale: number): void {
  const old = shape.value;
  if (!old) return;
  if (old.tool !== "polygon") {
    finish();
    return;
  }
  const dragged = old.points.length >= 24;
  const first: number[] = old.points.slice(0, -2);
  if (dragged) finish();
  else if (closes(first, at, 10 / scale)) {
    shape.value = { ...old, points: first, pressed: false };
    finish();
    closedAt = performance.now();
  } else shape.value = { ...old, pressed: false };
}

/** Makes a row of the shape, or of the proposal. False if there was nothing to finish. */
export function finish(): boolean {
  const [now, offered, d] = [shownFrame.value, proposal.value, detail.value];
  if (!now || !d) return false;
  if (offered) {
    proposal.value = null;
    commit(offered.tool, offered.points, offered.radii, offered.outline);
    return true;
  }
  const done = shape.value;
  if (!done) return false;
  shape.value = null;
  if (done.tool === "polygon" && done.points.length < 6) {
    say("A polygon needs three corners");
    return true;
  }
  if (done.tool === "box") {
    const [x0, y0, x1, y1] = done.points;
    const box = x1 === undefined ? null : boxOf([x0!, y0!], [x1, y1!], d);
    if (box) void propose("box", box, []);
    else say("The box is empty: drag from corner to corner");
    return true;
  }
  if (done.tool === "scribble") void propose("scribble", done.points, done.radii);
  else commit(done.tool, done.points, done.radii);
  return true;
}

async function propose(kind: "box" | "scribble", points: number[], radii: number[]): Promise<void> {
  const now = shownFrame.value!;
  const request = { image: now.image, frame: now.frame, tool: kind, points, ...(radii[0] ? { radius: radii[0] } : {}) };
  let told: { outline: Ring[]; rule: string };
  try {
    told = await api.preview(request);
  } catch (error) {
    if (!(error instanceof api.Offline)) {
      complain(error);
      return;
    }
    const [x0, y0, x1, y1] = points as [number, number, number, number];
    const outline = kind === "box" ? [[x0, y0, x1, y0, x1, y1, x0, y1]] : [];
    told = { outline, rule: "the mask is made when the server is back" };
  }
  if (shownFrame.value?.image !== now.image || shownFrame.value.frame !== now.frame) return;
  proposal.value = { tool: kind, points, radii, outline: told.outline, rule: told.rule };
  say(`${kind}: ${told.rule}. Enter takes it, Escape drops it`);
}

function commit(kind: StrokeTool, points: number[], radii: number[], outline?: Ring[]): void {
  const now = shownFrame.value!;
  const d = detail.value!;
  const even = radii.every((r) => r === radii[0]);
  const width = kind === "polygon" || kind === "box" ? {} : even ? { radius: radii[0]! } : { radii };
  const row = { kind: "stroke" as const, tool: kind, points, ...width };
  if (kind === "eraser") {
    add(now.image, now.frame, { ...row, lesion: null });
    say("erased");
    return;
  }
  const probe = { ...row, id: "", image: "", frame: 0, made: "", lesion: null };
  const covering = outline?.[0] ? { ...probe, tool: "polygon" as const, points: outline[0] } : probe;
  const old = touched(marks.value?.lesions ?? [], covering, cls.value, apart.value, d);
  const lesion = old?.lesion ?? uuid();
  add(now.image, now.frame, { ...row, lesion, ...(old ? {} : { class: cls.value }) });
  apart.value = false;
  const known = outline ? null : marks.value?.lesions.find((l) => l.lesion === lesion); // a mask is measured by the server
  const text = known?.text ?? `new lesion, ${cls.value}`;
  say(old ? `added to ${text}` : text);
}

export function lesionAt([x, y]: Point): Lesion | null {
  return marks.value?.lesions.findLast((l) => contains(l.outline, x, y)) ?? null;
}

/** A class key: the class of the selected lesion and of the next mark; "normal" is a label of the whole image. */
export function takeClass(name: string): void {
  const now = shownFrame.value;
  if (!now) return;
  if (name === normal.value) {
    label(now.image, now.frame, name);
    return;
  }
  chosenClass.value = name;
  const lesion = marks.value?.lesions.find((l) => l.lesion === selected.value);
  if (lesion && lesion.class !== name) {
    add(now.image, now.frame, { kind: "lesion", lesion: lesion.lesion, class: name });
    say(`lesion ${lesion.number} is ${name}`);
  } else say(`next mark: ${name}`);
}

export function accept(one: Suggestion): void {
  const now = shownFrame.value;
  const from = offers.value;
  if (!now || !from) return;
  const suggestion = { model: from.model, threshold: from.threshold, index: one.index };
  const name = one.class !== null && lesionClasses.value.includes(one.class) ? one.class : cls.value;
  add(now.image, now.frame, { kind: "accept", lesion: uuid(), class: name, outline: one.outline, suggestion });
  offers.value = { ...from, suggestions: from.suggestions.filter((s) => s !== one) };
  say(`accepted: ${one.text}`);
}

export function remove(lesion: Lesion): void {
  const now = shownFrame.value;
  if (!now) return;
  add(now.image, now.frame, { kind: "remove", lesion: lesion.lesion });
  if (selected.value === lesion.lesion) selected.value = null;
  say(`deleted: ${lesion.text}`);
}

/** The marks of this frame, as they are now, onto the next one. */
export function copyOn(): boolean {
  const now = shownFrame.value;
  const d = detail.value;
  const lesions = marks.value?.lesions ?? [];
  if (!now || !d) return false;
  if (now.frame + 1 >= d.frames || !lesions.length) {
    say(lesions.length ? "This is the last frame" : "No mark to copy on this frame");
    return false;
  }
  for (const { lesion } of lesions) {
    add(now.image, now.frame + 1, { kind: "copy", lesion: uuid(), from: { frame: now.frame, lesion } });
  }
  say(`${lesions.length} ${lesions.length === 1 ? "mark" : "marks"} copied to frame ${now.frame + 2}`);
  return true;
}
