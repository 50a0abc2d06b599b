import { expect, test } from "vitest";
import { emptyMarks, fold, touched } from "../src/core/fold";
import type { FrameMarks, Row } from "../src/types";

const CONTEXT = { image: { width: 100, height: 80 }, spacing: null, rater: "anna", normal: "normal" };
let n = 0;

type Content<R> = R extends Row ? Omit<R, "id" | "image" | "frame" | "made"> : never;
const row = (content: Content<Row>, id = `r${n++}`): Row =>
  ({ id, image: "i", frame: 0, made: `2026-01-01T00:00:00.${n}Z`, ...content }) as Row;

const brush = (lesion: string, points: number[], cls?: string) =>
  row({ kind: "stroke", tool: "brush", lesion, points, radius: 5, ...(cls ? { class: cls } : {}) });

const start = (): FrameMarks => emptyMarks("i", 0);

test("a stroke that waits for the server is a lesion already", () => {
  const { lesions, undo_text } = fold(start(), [brush("a", [20, 20, 40, 20], "benign")], CONTEXT);
  expect(lesions).toHaveLength(1);
  expect(lesions[0]!.class).toBe("benign");
  expect(Math.abs(lesions[0]!.pixels - (200 + 25 * Math.PI))).toBeLessThan(8);
  expect(lesions[0]!.text).toMatch(/^lesion 1, benign, 30 x 1[01] pixels$/);
  expect(undo_text).toBe("brush stroke");
});

test("a second stroke of the same lesion adds to it; one of another lesion is numbered next", () => {
  const rows = [brush("a", [20, 20], "benign"), brush("a", [26, 20]), brush("b", [70, 60], "malignant")];
  const { lesions } = fold(start(), rows, CONTEXT);
  expect(lesions.map((l) => [l.lesion, l.number])).toEqual([
    ["a", 1],
    ["b", 2],
  ]);
  expect(lesions[0]!.pixels).toBeGreaterThan(lesions[1]!.pixels);
});

test("an eraser across two lesions takes from both, and one that nothing is left of is gone", () => {
  const eraser = (points: number[], radius: number) =>
    row({ kind: "stroke", tool: "eraser", lesion: null, points, radius });
  const both = [brush("a", [20, 20], "benign"), brush("b", [40, 20], "benign")];
  const before = fold(start(), both, CONTEXT).lesions.map((l) => l.pixels);
  const after = fold(start(), [...both, eraser([20, 16, 40, 16], 2)], CONTEXT).lesions.map((l) => l.pixels);
  expect(after[0]).toBeLessThan(before[0]!);
  expect(after[1]).toBeLessThan(before[1]!);
  expect(fold(start(), [...both, eraser([20, 20], 8)], CONTEXT).lesions.map((l) => l.lesion)).toEqual(["b"]);
});

test("undo and redo of what waits are one step each, and a new step ends the redo", () => {
  const first = brush("a", [20, 20], "benign");
  const second = brush("b", [60, 20], "benign");
  const undo = row({ kind: "undo", target: second.id });
  const redo = row({ kind: "redo", target: second.id });
  const undone = fold(start(), [first, second, undo], CONTEXT);
  expect(undone.lesions).toHaveLength(1);
  expect([undone.undo, undone.redo]).toEqual([first.id, second.id]);
  expect(fold(start(), [first, second, undo, redo], CONTEXT).lesions).toHaveLength(2);
  const on = fold(start(), [first, second, undo, brush("c", [80, 60], "benign")], CONTEXT);
  expect(on.redo).toBeNull();
});

test("a label shows at once, and a normal image with a lesion is a conflict in words", () => {
  const rows = [brush("a", [20, 20], "benign"), row({ kind: "label", class: "normal" })];
  const marks = fold(start(), rows, CONTEXT);
  expect([marks.label, marks.label_from, marks.conflict]).toEqual(["normal", "label", "labelled normal, but has 1 lesion"]);
  expect(fold(start(), [...rows, row({ kind: "label", class: null })], CONTEXT).label).toBeNull();
});

test("numbers never change, also when a lesion is deleted, and a class can be changed", () => {
  const rows = [brush("a", [20, 20], "benign"), brush("b", [60, 20], "benign"), row({ kind: "remove", lesion: "a" })];
  const marks = fold(start(), [...rows, row({ kind: "lesion", lesion: "b", class: "malignant" })], CONTEXT);
  expect(marks.lesions.map((l) => [l.number, l.class])).toEqual([[2, "malignant"]]);
  expect(marks.lesions[0]!.text).toContain("lesion 2, malignant");
});

test("without rows that wait the server's answer is shown untouched", () => {
  const base = start();
  expect(fold(base, [], CONTEXT)).toBe(base);
});

test("a stroke joins the lesion of its class that it covers most, never one of another class", () => {
  const { lesions } = fold(start(), [brush("a", [20, 20], "benign"), brush("b", [34, 20], "benign")], CONTEXT);
  const probe = (x: number, cls: string, apart = false) => {
    const stroke = brush("new", [x, 20]);
    if (stroke.kind !== "stroke") throw new Error("no stroke");
    return touched(lesions, stroke, cls, apart, CONTEXT.image)?.lesion ?? null;
  };
  expect(probe(22, "benign")).toBe("a");
  expect(probe(32, "benign")).toBe("b");
  expect(probe(60, "benign")).toBeNull();
  expect(probe(22, "malignant")).toBeNull();
  expect(probe(22, "benign", true)).toBeNull();
});
