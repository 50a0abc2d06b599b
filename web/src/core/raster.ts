/** Shapes to pixels. A pixel belongs to a shape if its centre (x + 0.5, y + 0.5) is inside; the server rasterises alike. */

import type { Ring, StrokeRow } from "../types";
import type { Size } from "./view";

/** A window of the image: `data[(y - top) * width + x - left]` is 1 inside, 0 outside. */
export interface Mask {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** The smallest window of whole pixels around these boxes, inside the image. */
export function windowAround(boxes: readonly Box[], image: Size): Mask {
  const left = Math.max(0, Math.floor(Math.min(...boxes.map((b) => b[0]))));
  const top = Math.max(0, Math.floor(Math.min(...boxes.map((b) => b[1]))));
  const width = Math.max(0, Math.min(image.width, Math.ceil(Math.max(...boxes.map((b) => b[2])))) - left);
  const height = Math.max(0, Math.min(image.height, Math.ceil(Math.max(...boxes.map((b) => b[3])))) - top);
  return { left, top, width, height, data: new Uint8Array(width * height) };
}

export function ringBox(rings: readonly Ring[]): Box {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let i = 0; i + 1 < ring.length; i += 2) {
      const [x, y] = [ring[i]!, ring[i + 1]!];
      if (x < x0) x0 = x;
      if (y < y0) y0 = y;
      if (x > x1) x1 = x;
      if (y > y1) y1 = y;
    }
  }
  return [x0, y0, x1, y1];
}

export function strokeBox(stroke: Pick<StrokeRow, "points" | "radius" | "radii">): Box {
  const [x0, y0, x1, y1] = ringBox([stroke.points]);
  const r = Math.max(stroke.radius ?? 0, ...(stroke.radii ?? []));
  return [x0 - r, y0 - r, x1 + r, y1 + r];
}

/** Sets the pixels inside the rings, even-odd. */
export function fillRings(mask: Mask, rings: readonly Ring[], value: 0 | 1 = 1): void {
  const { left, top, width, height, data } = mask;
  for (let row = 0; row < height; row++) {
    const y = top + row + 0.5;
    const crossings: number[] = [];
    for (const ring of rings) {
      const n = ring.length;
      for (let i = 0; i < n; i += 2) {
        const [xa, ya, xb, yb] = [ring[i]!, ring[i + 1]!, ring[(i + 2) % n]!, ring[(i + 3) % n]!];
        if (ya <= y !== yb <= y) crossings.push(xa + ((y - ya) * (xb - xa)) / (yb - ya));
      }
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(0, Math.ceil(crossings[i]! - left - 0.5));
      const to = Math.min(width, Math.ceil(crossings[i + 1]! - left - 0.5));
      if (to > from) data.fill(value, row * width + from, row * width + to);
    }
  }
}

/** Sets the pixels of discs at the points and of the capsules between them. */
export function fillStroke(mask: Mask, points: readonly number[], radii: readonly number[], value: 0 | 1 = 1): void {
  const n = points.length / 2;
  for (let i = 0; i < n; i++) {
    const j = Math.min(i + 1, n - 1);
    const r = (k: number) => radii[k] ?? radii[0]!;
    capsule(mask, points[2 * i]!, points[2 * i + 1]!, r(i), points[2 * j]!, points[2 * j + 1]!, r(j), value);
  }
}

function capsule(
  { left, top, width, height, data }: Mask,
  xa: number,
  ya: number,
  ra: number,
  xb: number,
  yb: number,
  rb: number,
  value: 0 | 1,
): void {
  const r = Math.max(ra, rb);
  const [dx, dy] = [xb - xa, yb - ya];
  const length = dx * dx + dy * dy;
  const firstColumn = Math.max(0, Math.floor(Math.min(xa, xb) - r) - left);
  const lastColumn = Math.min(width - 1, Math.ceil(Math.max(xa, xb) + r) - left);
  const firstRow = Math.max(0, Math.floor(Math.min(ya, yb) - r) - top);
  const lastRow = Math.min(height - 1, Math.ceil(Math.max(ya, yb) + r) - top);
  for (let row = firstRow; row <= lastRow; row++) {
    const y = top + row + 0.5 - ya;
    for (let column = firstColumn; column <= lastColumn; column++) {
      const x = left + column + 0.5 - xa;
      const t = length ? Math.min(1, Math.max(0, (x * dx + y * dy) / length)) : 0;
      const [ex, ey] = [x - t * dx, y - t * dy];
      const reach = ra + t * (rb - ra);
      if (ex * ex + ey * ey <= reach * reach) data[row * width + column] = value;
    }
  }
}

/** Adds or takes away one stroke; a box counts as its rectangle until the server's rule has replaced it. */
export function fillRow(mask: Mask, stroke: StrokeRow): void {
  const value = stroke.tool === "eraser" ? 0 : 1;
  const p = stroke.points;
  if (stroke.tool === "polygon") fillRings(mask, [p], value);
  else if (stroke.tool === "box") fillRings(mask, [[p[0]!, p[1]!, p[2]!, p[1]!, p[2]!, p[3]!, p[0]!, p[3]!]], value);
  else fillStroke(mask, p, stroke.radii ?? [stroke.radius ?? 1], value);
}

export function count(mask: Mask): number {
  return mask.data.reduce((sum, v) => sum + v, 0);
}
