/** Pixels and maps to outlines. */

import type { HeatMap, Ring } from "../types";
import type { Mask } from "./raster";
import type { Size } from "./view";

/**
 * The rings around the pixels of a mask, on pixel edges, even-odd. Inside is to the right of the way; where two pixels
 * touch at a corner only, the way turns right, so that they stay apart.
 */
export function ringsOf({ left, top, width, height, data }: Mask): Ring[] {
  const inside = (x: number, y: number) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === 1;
  const starts = new Uint8Array((width + 1) * (height + 1)); // corners whose way to the right is still to be walked
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x < width; x++) if (inside(x, y) && !inside(x, y - 1)) starts[y * (width + 1) + x] = 1;
  }
  const steps = [
    [1, 0],
    [0, 1],
    [-1, 0],
    [0, -1],
  ] as const;
  // For each direction: the pixel ahead on the right and the pixel ahead on the left of a corner.
  const right = [
    [0, 0],
    [-1, 0],
    [-1, -1],
    [0, -1],
  ] as const;
  const rings: Ring[] = [];
  for (let start = 0; start < starts.length; start++) {
    if (!starts[start]) continue;
    const ring: Ring = [];
    let x = start % (width + 1);
    let y = Math.floor(start / (width + 1));
    let direction = 0;
    do {
      if (direction === 0) starts[y * (width + 1) + x] = 0;
      const [dx, dy] = steps[direction]!;
      x += dx;
      y += dy;
      const ahead = right[direction]!;
      const aheadLeft = right[(direction + 3) % 4]!;
      let turn = 0;
      if (!inside(x + ahead[0], y + ahead[1])) turn = 1;
      else if (inside(x + aheadLeft[0], y + aheadLeft[1])) turn = 3;
      if (turn) ring.push(x + left, y + top);
      direction = (direction + turn) % 4;
    } while (!(x === start % (width + 1) && y === Math.floor(start / (width + 1)) && direction === 0));
    rings.push(ring);
  }
  return rings;
}

/** The value of a map at a point of the image; cells are centred at (i + 0.5) / n of the side. */
export function valueAt(map: HeatMap, image: Size, x: number, y: number): number {
  const u = Math.min(map.width - 1, Math.max(0, (x / image.width) * map.width - 0.5));
  const v = Math.min(map.height - 1, Math.max(0, (y / image.height) * map.height - 0.5));
  const [i, j] = [Math.floor(u), Math.floor(v)];
  const at = (a: number, b: number) => map.values[Math.min(map.height - 1, b) * map.width + Math.min(map.width - 1, a)]!;
  const upper = at(i, j) * (1 - (u - i)) + at(i + 1, j) * (u - i);
  const lower = at(i, j + 1) * (1 - (u - i)) + at(i + 1, j + 1) * (u - i);
  return (upper * (1 - (v - j)) + lower * (v - j)) / 65535;
}

/**
 * Line segments x0, y0, x1, y1 where the map crosses the threshold, in pixels of the image (marching squares; Lorensen and
 * Cline 1987 in two dimensions). The map counts as 0 outside, so that every line is closed.
 */
export function contour(map: HeatMap, image: Size, threshold: number): number[] {
  const level = threshold * 65535;
  const { width, height, values } = map;
  const at = (i: number, j: number) => (i < 0 || j < 0 || i >= width || j >= height ? 0 : values[j * width + i]!);
  const px = (i: number) => Math.min(image.width, Math.max(0, ((i + 0.5) / width) * image.width));
  const py = (j: number) => Math.min(image.height, Math.max(0, ((j + 0.5) / height) * image.height));
  const lines: number[] = [];
  for (let j = -1; j < height; j++) {
    for (let i = -1; i < width; i++) {
      const [a, b, c, d] = [at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)];
      const kind = (a >= level ? 1 : 0) | (b >= level ? 2 : 0) | (c >= level ? 4 : 0) | (d >= level ? 8 : 0);
      if (kind === 0 || kind === 15) continue;
      const between = (p: number, q: number) => (level - p) / (q - p);
      const sides = {
        n: () => [px(i + between(a, b)), py(j)],
        e: () => [px(i + 1), py(j + between(b, c))],
        s: () => [px(i + between(d, c)), py(j + 1)],
        w: () => [px(i), py(j + between(a, d))],
      };
      for (const [from, to] of CASES[kind]!) lines.push(...sides[from](), ...sides[to]());
    }
  }
  return lines;
}

type Side = "n" | "e" | "s" | "w";
const CASES: Record<number, [Side, Side][]> = {
  1: [["w", "n"]],
  2: [["n", "e"]],
  3: [["w", "e"]],
  4: [["e", "s"]],
  5: [
    ["w", "n"],
    ["e", "s"],
  ],
  6: [["n", "s"]],
  7: [["w", "s"]],
  8: [["s", "w"]],
  9: [["s", "n"]],
  10: [
    ["n", "e"],
    ["s", "w"],
  ],
  11: [["s", "e"]],
  12: [["e", "w"]],
  13: [["e", "n"]],
  14: [["n", "w"]],
};
