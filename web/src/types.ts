/** The shapes of the server's answers, as its OpenAPI schema names them. Lengths are in pixels of the image. */

export interface ClassInfo {
  name: string;
  normal: boolean;
}

export interface Readiness {
  ready: boolean;
  reason: string;
  support: Record<string, number>;
  held_out: Record<string, number>;
  notes: string[];
}

export type JobState =
  | "waiting"
  | "fitting"
  | "predicting"
  | "calibrating"
  | "writing"
  | "done"
  | "failed"
  | "cancelled";

export interface Job {
  number: number;
  kind: "adapt" | "predict" | "export" | "check";
  state: JobState;
  model: number | null;
  text: string;
  done: number;
  total: number;
  fraction: number;
  predicted: number;
  to_predict: number;
  started: string;
  seconds: number;
  error: string | null;
  cancellable: boolean;
}

export interface Project {
  id: string;
  title: string;
  version: string;
  classes: ClassInfo[];
  raters: string[];
  held_out_share: number;
  images: number;
  frames: number;
  marked: number;
  held_out: number;
  model: number | null;
  row: number;
  job: Job | null;
  adapt: Readiness;
  limits: Record<string, number>;
  voice: boolean;
  notice: string;
}

export interface Import {
  number: number;
  title: string;
  state: "running" | "done" | "failed";
  found: number;
  done: number;
  failed: number;
  notes: string[];
  error: string | null;
}

export interface Pred {
  model: number;
  score: number;
  abnormal: boolean;
  class: string | null;
  probs: Record<string, number> | null;
  uncertainty: number;
  has_map: boolean;
  out_of_scope: boolean;
  set: string[] | null;
}

export type Role = "support" | "held_out" | null;

export interface Item {
  id: string;
  name: string;
  frames: number;
  width: number;
  height: number;
  patient: string | null;
  device: string | null;
  label: string | null;
  lesions: number;
  accepted: number;
  role: Role;
  skipped: boolean;
  failed: string | null;
  best: number;
  pred: Pred | null;
  former: { score: number; abnormal: boolean; class: string | null } | null;
  decision: string | null;
  warnings: string[];
}

export interface FrameItem {
  frame: number;
  label: string | null;
  lesions: number;
  pred: Pred | null;
}

export interface Detail extends Item {
  spacing_mm: [number, number] | null;
  spacing_source: string | null;
  frame_items: FrameItem[];
  site: string | null;
  split: string | null;
}

export interface Items {
  total: number;
  row: number;
  items: Item[];
  order: string[]; // every image of the query; empty unless it was asked for
}

export interface Query {
  sort: string;
  order: "asc" | "desc";
  search: string;
  class: string;
  patient: string;
  device: string;
  state: string;
}

/** A closed ring x0, y0, x1, y1, ... Several rings are filled even-odd. */
export type Ring = number[];

export interface Lesion {
  lesion: string;
  number: number;
  class: string | null;
  origin: "drawn" | "accepted" | "imported" | "copied";
  rater: string;
  outline: Ring[];
  box: [number, number, number, number];
  pixels: number;
  size_px: [number, number];
  size_mm: [number, number] | null;
  text: string;
  rule: string | null;
}

export interface FrameMarks {
  image: string;
  frame: number;
  row: number;
  label: string | null;
  label_from: "label" | "lesions" | "import" | null;
  role: Role;
  conflict: string | null;
  skipped: boolean;
  lesions: Lesion[];
  undo: string | null;
  undo_text: string | null;
  redo: string | null;
  redo_text: string | null;
}

export type StrokeTool = "brush" | "eraser" | "polygon" | "box" | "scribble";

interface RowHead {
  id: string;
  image: string;
  frame: number;
  made: string;
}

export interface StrokeRow extends RowHead {
  kind: "stroke";
  lesion: string | null;
  tool: StrokeTool;
  points: number[];
  radius?: number;
  radii?: number[];
  class?: string;
}

export type Row =
  | StrokeRow
  | (RowHead & { kind: "lesion"; lesion: string; class: string })
  | (RowHead & { kind: "remove"; lesion: string })
  | (RowHead & { kind: "label"; class: string | null })
  | (RowHead & {
      kind: "accept";
      lesion: string;
      class: string;
      outline: Ring[];
      suggestion: { model: number; threshold: number; index: number };
    })
  | (RowHead & { kind: "copy"; lesion: string; from: { frame: number; lesion: string } })
  | (RowHead & { kind: "role"; role: "support" | "held_out" | "auto" })
  | (RowHead & { kind: "skip" | "seen" })
  | (RowHead & { kind: "undo" | "redo"; target: string });

export interface Saved {
  row: number;
  saved: { id: string; row: number; status: "saved" | "known" | "refused"; reason: string | null }[];
  frames: FrameMarks[];
}

export interface Preview {
  outline: Ring[];
  rule: string;
  box: [number, number, number, number];
  pixels: number;
}

export interface Suggestion {
  index: number;
  outline: Ring[];
  box: [number, number, number, number];
  class: string | null;
  peak: number;
  pixels: number;
  size_mm: [number, number] | null;
  text: string;
}

export interface Suggestions {
  model: number;
  threshold: number;
  suggestions: Suggestion[];
}

/** The abnormality map of a frame on the model's grid; it covers the whole image. */
export interface HeatMap {
  width: number;
  height: number;
  model: number;
  values: Uint16Array;
}

export type Interval = [value: number, low: number, high: number];

export interface CurvePoint {
  threshold: number;
  sensitivity: Interval | null;
  specificity: Interval | null;
}

export interface Numbers {
  source: string;
  images: number;
  patients: number | null;
  abnormal: number;
  normal: number;
  threshold: number;
  curve: CurvePoint[];
  auroc: Interval | null;
  dice: Interval | null;
  text: string;
  caution: string | null;
}

export interface ModelInfo {
  number: number;
  name: string;
  made: string;
  current: boolean;
  method: string;
  backbone: string;
  seconds: number;
  support: Record<string, number>;
  image_threshold: number;
  pixel_threshold: number | null;
  threshold_from: string;
  notes: string[];
  used_held_out: boolean;
  sets: string;
  numbers: Numbers | null;
  predicted: number;
}

export interface Change {
  image: string;
  frame: number;
  name: string;
  before: string;
  after: string;
  score_before: number;
  score: number;
  label: string | null;
}

export interface Changes {
  against: number | null;
  flipped: Change[];
  missed: Change[];
  found: Change[];
  false_alarms: Change[];
  compared: number;
  text: string;
}

export interface QueueItem {
  image: string;
  frame: number;
  name: string;
  reason: string;
  kind: "unsure" | "unlike" | "disagrees" | "random" | "class";
  held_out: boolean;
  score: number | null;
}

export interface Queue {
  items: QueueItem[];
  worth: boolean;
  message: string;
}

export interface Finding {
  severity: "error" | "warning" | "info";
  kind: string;
  message: string;
  images: string[];
  items: string[];
}

export interface Check {
  state: "none" | "running" | "done" | "stale";
  findings: Finding[];
}

export interface Group {
  name: string | null;
  images: number;
  marked: number;
  abnormal: number;
  mean_score: number | null;
  wrong: number;
}

export interface MethodOption {
  key: string;
  values: string;
  default: unknown;
  description: string;
  section: string;
  choices: string[] | null;
  type: "number" | "integer" | "boolean" | "text" | "choice" | "other";
}

export interface MethodInfo {
  name: string;
  title: string;
  idea: string;
  needs: string[];
  gives: string[];
  ready: boolean;
  reason: string;
  options: MethodOption[];
}

export interface Export {
  number: number;
  made: string;
  model: number | null;
  folder: string;
  files: number;
  bytes: number;
  what: string[];
  command: string;
}

/** Something that can be said. */
export interface Word {
  name: string;
  kind: "command" | "class";
}

export interface VoiceInfo {
  installed: boolean;
  message: string;
  words: Word[];
  silent: { name: string; why: string }[];
  said: Record<string, string>;
}

export interface HeardWord {
  word: Word | null;
  text: string;
}
