/** Points of a stroke while it is drawn. */

import type { Point } from "./view";

/** A tenth of a pixel is more than a hand can do; it keeps rows short. */
export const tidy = (v: number): number => Math.round(v * 10) / 10;

/** Radius under a pen: half at no pressure, one and a half times at full; a mouse or finger has no pressure to tell. */
export function radiusFor(radius: number, pointer: string, pressure: number): number {
  return pointer === "pen" ? tidy(radius * (0.5 + pressure)) : tidy(radius);
}

/** True if the point is worth keeping: at least half a screen pixel and a fifth of an image pixel from the last. */
export function farEnough(points: readonly number[], [x, y]: Point, scale: number): boolean {
  if (points.length < 2) return true;
  const d = Math.hypot(x - points.at(-2)!, y - points.at(-1)!);
  return d * scale >= 0.5 && d >= 0.2;
}

/** True if a click closes the polygon: within `reach` of its first corner, and there are at least three. */
export function closes(points: readonly number[], [x, y]: Point, reach: number): boolean {
  return points.length >= 6 && Math.hypot(x - points[0]!, y - points[1]!) <= reach;
}

/** A box from two corners, first corner upper left; null if it has no area. */
export function boxOf(a: Point, b: Point, image: { width: number; height: number }): number[] | null {
  const kept = (v: number, most: number) => tidy(Math.min(most, Math.max(0, v)));
  const [x0, x1] = [kept(Math.min(a[0], b[0]), image.width), kept(Math.max(a[0], b[0]), image.width)];
  const [y0, y1] = [kept(Math.min(a[1], b[1]), image.height), kept(Math.max(a[1], b[1]), image.height)];
  return x1 - x0 >= 1 && y1 - y0 >= 1 ? [x0, y0, x1, y1] : null;
}
