/** What a frame looks like: the server's answer with the rows on top that it has not answered yet. */

import type { FrameMarks, Lesion, Ring, Row, StrokeRow } from "../types";
import { area, axes, describe } from "./measure";
import { ringsOf } from "./outline";
import { count, fillRings, fillRow, ringBox, strokeBox, windowAround } from "./raster";
import type { Size } from "./view";

export interface Context {
  image: Size;
  spacing: readonly [row: number, col: number] | null;
  rater: string;
  /** Class names that mean "no lesion". */
  normal: string;
}

const STEPS = new Set(["stroke", "lesion", "remove", "label", "accept", "copy", "role"]);

export function emptyMarks(image: string, frame: number): FrameMarks {
  return {
    image,
    frame,
    row: 0,
    label: null,
    label_from: null,
    role: null,
    conflict: null,
    skipped: false,
    lesions: [],
    undo: null,
    undo_text: null,
    redo: null,
    redo_text: null,
  };
}

/** Pending rows without those that a later pending undo takes back. */
function standing(rows: readonly Row[]): { rows: Row[]; undone: Row[] } {
  const kept: Row[] = [];
  const undone: Row[] = [];
  for (const row of rows) {
    if (row.kind === "undo") {
      const at = kept.findIndex((r) => r.id === row.target);
      if (at >= 0) undone.push(...kept.splice(at, 1));
    } else if (row.kind === "redo") {
      const at = undone.findIndex((r) => r.id === row.target);
      if (at >= 0) kept.push(...undone.splice(at, 1));
    } else {
      kept.push(row);
      if (STEPS.has(row.kind)) undone.length = 0;
    }
  }
  return { rows: kept, undone };
}

export function fold(base: FrameMarks, pending: readonly Row[], context: Context): FrameMarks {
  if (!pending.length) return base;
  const { rows, undone } = standing(pending);
  let marks = base;
  for (const row of rows) marks = apply(marks, row, context);
  const steps = rows.filter((r) => STEPS.has(r.kind));
  const last = steps.at(-1);
  const back = undone.at(-1);
  if (last) marks = { ...marks, undo: last.id, undo_text: words(last), redo: null, redo_text: null };
  if (back) marks = { ...marks, redo: back.id, redo_text: words(back) };
  return marks;
}

function apply(marks: FrameMarks, row: Row, context: Context): FrameMarks {
  switch (row.kind) {
    case "stroke":
      return { ...marks, lesions: stroke(marks.lesions, row, context) };
    case "accept": {
      const lesion = { ...blank(marks.lesions, row.lesion, row.class, context), origin: "accepted" as const };
      return { ...marks, lesions: [...marks.lesions, measured(lesion, row.outline, area(row.outline), context)] };
    }
    case "lesion":
      return {
        ...marks,
        lesions: marks.lesions.map((l) => (l.lesion === row.lesion ? worded({ ...l, class: row.class }) : l)),
      };
    case "remove":
      return { ...marks, lesions: marks.lesions.filter((l) => l.lesion !== row.lesion) };
    case "label": {
      const conflict =
        row.class === context.normal && marks.lesions.length
          ? `labelled ${row.class}, but has ${marks.lesions.length} ${marks.lesions.length === 1 ? "lesion" : "lesions"}`
          : null;
      return { ...marks, label: row.class, label_from: row.class === null ? null : "label", conflict };
    }
    case "role":
      return { ...marks, role: row.role === "auto" ? marks.role : row.role };
    case "skip":
      return { ...marks, skipped: true };
    default:
      return marks; // a copy takes its outline from the server
  }
}

function stroke(lesions: readonly Lesion[], row: StrokeRow, context: Context): Lesion[] {
  if (row.tool === "eraser") {
    return lesions.flatMap((l) => (row.lesion === null || row.lesion === l.lesion ? repaint(l, row, context) : [l]));
  }
  const old = lesions.find((l) => l.lesion === row.lesion);
  if (old) return lesions.flatMap((l) => (l === old ? repaint(old, row, context) : [l]));
  return [...lesions, ...repaint(blank(lesions, row.lesion ?? row.id, row.class ?? null, context), row, context)];
}

/** A new lesion. Numbers never change: it gets the next one. */
function blank(others: readonly Lesion[], lesion: string, cls: string | null, { rater }: Context): Lesion {
  return {
    lesion,
    number: Math.max(0, ...others.map((l) => l.number)) + 1,
    class: cls,
    origin: "drawn",
    rater,
    outline: [],
    box: [0, 0, 0, 0],
    pixels: 0,
    size_px: [0, 0],
    size_mm: null,
    text: "",
    rule: null,
  };
}

/** The lesion after a stroke; none if nothing is left of it. */
function repaint(lesion: Lesion, row: StrokeRow, context: Context): Lesion[] {
  const boxes = [strokeBox(row)];
  if (lesion.outline.length) boxes.push(ringBox(lesion.outline));
  const mask = windowAround(boxes, context.image);
  fillRings(mask, lesion.outline);
  const before = count(mask);
  fillRow(mask, row);
  const pixels = count(mask);
  if (pixels === before && row.tool === "eraser") return [lesion];
  return pixels ? [measured(lesion, ringsOf(mask), pixels, context)] : [];
}

function measured(lesion: Lesion, outline: Ring[], pixels: number, context: Context): Lesion {
  const { spacing } = context;
  const sizes = {
    outline,
    pixels,
    box: [...ringBox(outline)] as Lesion["box"],
    size_px: axes(outline),
    size_mm: spacing ? axes(outline, [spacing[1], spacing[0]]) : null,
  };
  return worded({ ...lesion, ...sizes });
}

function worded(lesion: Lesion): Lesion {
  return { ...lesion, text: describe(lesion) };
}

function words(row: Row): string {
  switch (row.kind) {
    case "stroke":
      return row.tool === "eraser" ? "eraser stroke" : `${row.tool} stroke`;
    case "lesion":
      return `class ${row.class}`;
    case "remove":
      return "deletion of a lesion";
    case "label":
      return row.class === null ? "label taken back" : `label ${row.class}`;
    case "accept":
      return "accepted suggestion";
    case "copy":
      return "copied lesion";
    case "role":
      return `use as ${row.role}`;
    default:
      return row.kind;
  }
}

/**
 * The lesion a finished stroke belongs to: the lesion of its class that it covers most, else none. Touching marks of one
 * class are one lesion, unless `apart` asks for a new one.
 */
export function touched(lesions: readonly Lesion[], row: StrokeRow, cls: string, apart: boolean, image: Size): Lesion | null {
  if (apart) return null;
  let best: Lesion | null = null;
  let most = 0;
  const reach = strokeBox(row);
  for (const lesion of lesions) {
    if (lesion.class !== cls || !lesion.outline.length) continue;
    const box = ringBox(lesion.outline);
    if (box[2] <= reach[0] || box[0] >= reach[2] || box[3] <= reach[1] || box[1] >= reach[3]) continue;
    const own = windowAround([box], image);
    fillRings(own, lesion.outline);
    const drawn: typeof own = { ...own, data: new Uint8Array(own.data.length) };
    fillRow(drawn, row);
    const shared = own.data.reduce((sum, v, i) => sum + (v & drawn.data[i]!), 0);
    if (shared > most) [best, most] = [lesion, shared];
  }
  return best;
}
