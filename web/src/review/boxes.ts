/** What can be done to boxes, as values. */

import type { Box, Corners } from "./api";

const STEP = 0.01; // of the picture, for a move by keyboard
const NEW = 0.2; // of the picture, for a box made by keyboard
export const SMALLEST = 3; // pixels of a side; less is a click

const clamp = (value: number, most: number) => Math.min(Math.max(Math.round(value), 0), most);

/** A box between two corners in any order, inside the picture; null if it is too small to be meant. */
export function drawn(a: [number, number], b: [number, number], size: [number, number]): Box | null {
  const [x0, x1] = [clamp(Math.min(a[0], b[0]), size[0]), clamp(Math.max(a[0], b[0]), size[0])];
  const [y0, y1] = [clamp(Math.min(a[1], b[1]), size[1]), clamp(Math.max(a[1], b[1]), size[1])];
  if (x1 - x0 < SMALLEST || y1 - y0 < SMALLEST) return null;
  return { number: null, corners: [x0, y0, x1, y1], text: "", score: null, action: "blank" };
}

/** A new box in the middle of the picture, to be moved by keyboard. */
export function central(size: [number, number]): Box | null {
  const [w, h] = size;
  return drawn([(w * (1 - NEW)) / 2, (h * (1 - NEW)) / 2], [(w * (1 + NEW)) / 2, (h * (1 + NEW)) / 2], size);
}

/** A box moved by steps, or with its last corner moved; inside the picture, and never too small. */
export function moved(box: Box, dx: number, dy: number, size: [number, number], resize: boolean): Box {
  const [w, h] = size;
  const sx = Math.max(1, Math.round(w * STEP)) * dx;
  const sy = Math.max(1, Math.round(h * STEP)) * dy;
  const [x0, y0, x1, y1] = box.corners;
  let corners: Corners;
  if (resize) {
    corners = [x0, y0, Math.max(x0 + SMALLEST, Math.min(x1 + sx, w)), Math.max(y0 + SMALLEST, Math.min(y1 + sy, h))];
  } else {
    const left = Math.min(Math.max(x0 + sx, 0), w - (x1 - x0));
    const top = Math.min(Math.max(y0 + sy, 0), h - (y1 - y0));
    corners = [left, top, left + x1 - x0, top + y1 - y0];
  }
  return { ...box, corners };
}

export const toggled = (box: Box): Box => ({ ...box, action: box.action === "blank" ? "leave" : "blank" });

export const areaOf = ({ corners: [x0, y0, x1, y1] }: Box): number => (x1 - x0) * (y1 - y0);
