import { expect, test } from "vitest";
import { area, axes, contains } from "../src/core/measure";
import { contour, ringsOf, valueAt } from "../src/core/outline";
import { count, fillRings, fillRow, fillStroke, strokeBox, windowAround, type Mask } from "../src/core/raster";
import type { HeatMap, StrokeRow } from "../src/types";

const IMAGE = { width: 40, height: 30 };
const whole = (): Mask => windowAround([[0, 0, IMAGE.width, IMAGE.height]], IMAGE);

/** A small generator, so that the shapes are the same in every run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomMask(seed: number, density: number): Mask {
  const next = random(seed);
  const mask = windowAround([[3, 4, 15, 14]], IMAGE);
  for (let i = 0; i < mask.data.length; i++) mask.data[i] = next() < density ? 1 : 0;
  return mask;
}

test("a stroke is the set of pixel centres within its radius of the line, by brute force", () => {
  const mask = whole();
  const [xa, ya, xb, yb, r] = [7.3, 8.1, 25.6, 19.4, 3.2];
  fillStroke(mask, [xa, ya, xb, yb], [r]);
  for (let y = 0; y < 30; y++) {
    for (let x = 0; x < 40; x++) {
      let nearest = Infinity;
      for (let k = 0; k <= 2000; k++) {
        const t = k / 2000;
        nearest = Math.min(nearest, Math.hypot(x + 0.5 - xa - t * (xb - xa), y + 0.5 - ya - t * (yb - ya)));
      }
      if (Math.abs(nearest - r) > 1e-3) expect(mask.data[y * 40 + x], `${x}, ${y}`).toBe(nearest < r ? 1 : 0);
    }
  }
});

test("a stroke under a pen is as wide as its radius at each end", () => {
  const mask = whole();
  fillStroke(mask, [10, 15, 30, 15], [1, 5]);
  const column = (x: number) => Array.from({ length: 30 }, (_, y) => mask.data[y * 40 + x]!).reduce((a, b) => a + b);
  expect(column(10)).toBe(2);
  expect(column(29)).toBe(10);
});

test("a polygon is the set of pixel centres inside it", () => {
  const triangle = [2.2, 3.1, 35.7, 8.4, 12.9, 27.3];
  const mask = whole();
  fillRings(mask, [triangle]);
  for (let y = 0; y < 30; y++) {
    for (let x = 0; x < 40; x++) {
      expect(mask.data[y * 40 + x]).toBe(contains([triangle], x + 0.5, y + 0.5) ? 1 : 0);
    }
  }
});

test("an eraser takes away what a brush of its size drew", () => {
  const row: StrokeRow = {
    id: "a",
    image: "i",
    frame: 0,
    made: "",
    kind: "stroke",
    lesion: null,
    tool: "brush",
    points: [5, 5, 20, 12],
    radius: 4,
  };
  const mask = whole();
  fillRow(mask, row);
  expect(count(mask)).toBeGreaterThan(100);
  fillRow(mask, { ...row, tool: "eraser" });
  expect(count(mask)).toBe(0);
});

test("the window of a stroke that leaves the image ends at its edge", () => {
  const window = windowAround([strokeBox({ points: [-3, 2, 50, 2], radius: 4 })], IMAGE);
  expect([window.left, window.top, window.width, window.height]).toEqual([0, 0, 40, 6]);
});

test.each([1, 2, 3, 4, 5, 6])("rings of random pixels fill to the same pixels (%i)", (seed) => {
  const mask = randomMask(seed, [0.2, 0.5, 0.8][seed % 3]!);
  const again = whole();
  const rings = ringsOf(mask);
  fillRings(again, rings);
  for (let y = 0; y < 30; y++) {
    for (let x = 0; x < 40; x++) {
      const [i, j] = [x - mask.left, y - mask.top];
      const was = i >= 0 && j >= 0 && i < mask.width && j < mask.height ? mask.data[j * mask.width + i] : 0;
      expect(again.data[y * 40 + x], `${x}, ${y}`).toBe(was);
    }
  }
});

test("rings have corners only, and a hole is a ring of its own", () => {
  const mask = windowAround([[0, 0, 5, 5]], IMAGE);
  mask.data.fill(1);
  mask.data[12] = 0;
  const rings = ringsOf(mask);
  expect(rings.map((r) => r.length / 2)).toEqual([4, 4]);
  expect(rings.map((r) => area([r]))).toEqual([25, 1]);
});

test("two pixels that touch at a corner stay two rings", () => {
  const mask = windowAround([[0, 0, 2, 2]], IMAGE);
  mask.data.set([1, 0, 0, 1]);
  expect(ringsOf(mask)).toHaveLength(2);
});

test("axes: a rectangle of pixels is as long and as wide as itself, in pixels and in mm", () => {
  expect(axes([[0, 0, 10, 0, 10, 1, 0, 1]])).toEqual([10, 1]);
  expect(axes([[0, 0, 10, 0, 10, 1, 0, 1]], [0.5, 2])).toEqual([expect.closeTo(5), expect.closeTo(2)]);
  expect(axes([[4, 4, 5, 4, 5, 5, 4, 5]])).toEqual([1, 1]);
});

test("axes: a disc of pixels has its diameter in both directions", () => {
  const mask = whole();
  fillStroke(mask, [20, 15], [9]);
  const [long, short] = axes(ringsOf(mask));
  expect(long).toBeGreaterThan(17);
  expect(long).toBeLessThan(19);
  expect(short).toBeGreaterThan(16.5);
  expect(short).toBeLessThanOrEqual(long);
});

function ramp(): HeatMap {
  const values = new Uint16Array(64);
  for (let i = 0; i < 64; i++) values[i] = ((i % 8) / 7) * 65535;
  return { width: 8, height: 8, model: 1, values };
}

test("map values are read at cell centres and bilinearly between", () => {
  const image = { width: 80, height: 80 };
  expect(valueAt(ramp(), image, 5, 40)).toBeCloseTo(0, 4);
  expect(valueAt(ramp(), image, 75, 40)).toBeCloseTo(1, 4);
  expect(valueAt(ramp(), image, 40, 40)).toBeCloseTo(0.5, 4);
  expect(valueAt(ramp(), image, 0, 40)).toBeCloseTo(0, 4);
});

test("the contour of a ramp is the line where it crosses the threshold, closed along the border", () => {
  const image = { width: 80, height: 80 };
  const lines = contour(ramp(), image, 0.5);
  const inner = [];
  for (let i = 0; i < lines.length; i += 4) {
    const [xa, ya, xb, yb] = lines.slice(i, i + 4) as [number, number, number, number];
    if (Math.min(ya, yb) > 5 && Math.max(ya, yb) < 75 && Math.max(xa, xb) < 70) inner.push(xa, xb);
  }
  expect(inner.length).toBe(10); // five whole cells
  for (const x of inner) expect(x).toBeCloseTo(40, 1);
});
