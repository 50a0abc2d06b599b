import { expect, test } from "vitest";
import { classColour, heat } from "../src/core/colours";
import { at, rate } from "../src/core/curve";
import { boxOf, closes, farEnough, radiusFor } from "../src/core/gesture";
import { layOut, move, range } from "../src/core/grid";
import { applyTable, clampLevels, table, WHOLE } from "../src/core/levels";
import { joined, pcm } from "../src/core/sound";
import { uuid } from "../src/core/uuid";
import { fit, keepInSight, pinch, toImage, toScreen, zoom } from "../src/core/view";

const IMAGE = { width: 640, height: 480 };
const CANVAS = { width: 900, height: 500 };

test("the whole image fits in the middle", () => {
  const view = fit(IMAGE, CANVAS);
  expect(toScreen(view, [320, 240])).toEqual([450, 250]);
  expect(toScreen(view, [0, 0])[1]).toBeGreaterThanOrEqual(0);
});

test("zooming keeps the point under the pointer, and strokes where they are in the image", () => {
  let view = fit(IMAGE, CANVAS);
  const point = toImage(view, [200, 300]);
  for (const factor of [1.3, 2, 0.5, 7]) view = zoom(view, [200, 300], factor, 0.1);
  expect(toScreen(view, point)[0]).toBeCloseTo(200);
  expect(toScreen(view, point)[1]).toBeCloseTo(300);
});

test("two fingers that move and spread take the image with them", () => {
  const view = fit(IMAGE, CANVAS);
  const next = pinch(view, [[100, 100], [200, 100]], [[150, 200], [350, 200]], 0.1);
  const middle = toImage(view, [150, 100]);
  expect(next.scale).toBeCloseTo(view.scale * 2);
  expect(toScreen(next, middle)[0]).toBeCloseTo(250);
  expect(toScreen(next, middle)[1]).toBeCloseTo(200);
});

test("the image cannot be lost outside the canvas", () => {
  const view = keepInSight({ scale: 1, x: 5000, y: -5000 }, IMAGE, CANVAS);
  expect(view.x).toBeLessThan(CANVAS.width);
  expect(view.y + IMAGE.height).toBeGreaterThan(0);
});

test("window and level: the identity changes nothing, a narrow window makes black and white", () => {
  expect([...table(WHOLE)]).toEqual(Array.from({ length: 256 }, (_, v) => v));
  const narrow = table({ level: 100, window: 4 });
  expect([narrow[90], narrow[110]]).toEqual([0, 255]);
  const pixels = new Uint8ClampedArray([90, 100, 110, 200]);
  applyTable(pixels, narrow);
  expect(pixels[3]).toBe(200);
  expect(pixels[0]).toBe(0);
  expect(clampLevels({ level: -7, window: 9000 })).toEqual({ level: 0, window: 512 });
});

test("a grid of ten thousand draws only what is near the visible part", () => {
  const grid = layOut(10_000, 1250, 200, 10, 46);
  expect(grid.columns).toBe(6);
  const [first, last] = range(grid, 10_000, 50 * grid.row, 800, 0.75);
  expect(first % grid.columns).toBe(0);
  expect(first).toBeLessThanOrEqual(50 * grid.columns);
  expect(last).toBeGreaterThanOrEqual(50 * grid.columns + Math.ceil(800 / grid.row) * grid.columns);
  expect(last - first).toBeLessThan(100);
  expect(range(grid, 0, 0, 800, 1)).toEqual([0, 0]);
  expect(range(grid, 3, 0, 800, 1)).toEqual([0, 3]);
});

test("arrow keys stay inside the grid", () => {
  const grid = layOut(20, 650, 200, 10, 46);
  expect(grid.columns).toBe(3);
  expect(move(grid, 20, 0, "ArrowLeft", 500)).toBe(0);
  expect(move(grid, 20, 1, "ArrowUp", 500)).toBe(1);
  expect(move(grid, 20, 1, "ArrowDown", 500)).toBe(4);
  expect(move(grid, 20, 18, "ArrowDown", 500)).toBe(18);
  expect(move(grid, 20, 5, "End", 500)).toBe(19);
  expect(move(grid, 20, 5, "x", 500)).toBe(5);
});

test("the curve is a step function", () => {
  const curve = [0, 0.4, 0.8].map((threshold) => ({
    threshold,
    sensitivity: [1 - threshold, 0, 1] as [number, number, number],
    specificity: null,
  }));
  expect(at(curve, 0.39)?.threshold).toBe(0);
  expect(at(curve, 0.4)?.threshold).toBe(0.4);
  expect(at(curve, 1)?.threshold).toBe(0.8);
  expect(at([], 0.5)).toBeNull();
  expect(rate([0.833, 0.44, 0.97])).toEqual(["0.83", "0.44 to 0.97"]);
  expect(rate(null)).toEqual(["–", ""]);
});

test("pressure changes the radius of a pen only", () => {
  expect(radiusFor(10, "mouse", 0.5)).toBe(10);
  expect(radiusFor(10, "touch", 1)).toBe(10);
  expect(radiusFor(10, "pen", 0)).toBe(5);
  expect(radiusFor(10, "pen", 1)).toBe(15);
});

test("points that add nothing are left out", () => {
  expect(farEnough([], [1, 1], 1)).toBe(true);
  expect(farEnough([1, 1], [1.1, 1], 10)).toBe(false);
  expect(farEnough([1, 1], [2, 1], 0.1)).toBe(false);
  expect(farEnough([1, 1], [2, 1], 1)).toBe(true);
});

test("a polygon closes at its first corner, a box has its corners in order and stays in the image", () => {
  expect(closes([0, 0, 10, 0, 10, 10], [1, 1], 2)).toBe(true);
  expect(closes([0, 0, 10, 0], [1, 1], 2)).toBe(false);
  expect(boxOf([700, 20], [5, -4], IMAGE)).toEqual([5, 0, 640, 20]);
  expect(boxOf([5, 5], [5, 9], IMAGE)).toBeNull();
});

test("each class has its colour, the normal one always the same", () => {
  const classes = ["benign", "malignant", "none"].map((name) => ({ name, normal: name === "none" }));
  const colours = classes.map((c) => classColour(classes, c.name));
  expect(new Set(colours).size).toBe(3);
  expect(colours[2]).toBe(classColour([{ name: "normal", normal: true }], "normal"));
});

test("the heat ramp grows lighter all the way", () => {
  let before = -1;
  for (let v = 0; v <= 1.001; v += 0.05) {
    const [r, g, b] = heat(v).map((c) => (c / 255) ** 2.2) as [number, number, number];
    const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    expect(light).toBeGreaterThan(before);
    before = light;
  }
});

test("identifiers are UUIDs and differ", () => {
  const many = Array.from({ length: 200 }, uuid);
  for (const id of many) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(many).size).toBe(200);
});

test("sound is sent as signed 16 bit, the smaller byte first, and too loud samples stay at the ends", () => {
  const whole = joined([new Float32Array([0, 1]), new Float32Array([-1, 2, -3, 0.5])]);
  expect([...whole]).toEqual([0, 1, -1, 2, -3, 0.5]);
  const bytes = new DataView(pcm(whole));
  expect([0, 1, 2, 3, 4, 5].map((i) => bytes.getInt16(2 * i, true))).toEqual([0, 32767, -32767, 32767, -32767, 16384]);
});
