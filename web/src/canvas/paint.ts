/** Draws a scene; reads no state and handles no input. */

import type { Lesion, Ring, Suggestion } from "../types";
import type { Point, Size, View } from "../core/view";

export interface Scene {
  readonly view: View;
  readonly size: Size; // of the image, in its own pixels
  readonly picture: CanvasImageSource | null;
  readonly map: { image: CanvasImageSource; opacity: number } | null;
  readonly lesions: readonly Lesion[];
  readonly selected: string | null;
  readonly suggestions: readonly Suggestion[];
  readonly proposal: readonly Ring[] | null;
  readonly live: { tool: string; points: readonly number[]; radii: readonly number[] } | null;
  readonly ring: { at: Point; radius: number | null } | null; // where a stroke would be; null radius: a cross
  readonly pen: { at: Point; radius: number | null } | null;
  readonly colour: (cls: string | null) => string;
  readonly current: string; // colour of the next mark
  readonly accent: string;
  readonly unit: number; // 1 at the smallest text of the page; lines and letters grow with it
}

const HALO = "rgba(0, 0, 0, 0.65)";
const paths = new WeakMap<readonly Ring[], Path2D>();

function pathOf(rings: readonly Ring[]): Path2D {
  let path = paths.get(rings);
  if (!path) {
    path = new Path2D();
    for (const ring of rings) {
      for (let i = 0; i < ring.length; i += 2) {
        if (i) path.lineTo(ring[i]!, ring[i + 1]!);
        else path.moveTo(ring[0]!, ring[1]!);
      }
      path.closePath();
    }
    paths.set(rings, path);
  }
  return path;
}

export function paint(c: CanvasRenderingContext2D, scene: Scene, pixelRatio: number): void {
  const { view, size } = scene;
  c.setTransform(1, 0, 0, 1, 0, 0);
  c.clearRect(0, 0, c.canvas.width, c.canvas.height);
  const home = () =>
    c.setTransform(view.scale * pixelRatio, 0, 0, view.scale * pixelRatio, view.x * pixelRatio, view.y * pixelRatio);
  home();
  c.imageSmoothingEnabled = view.scale * pixelRatio < 4; // single pixels are shown as squares
  c.imageSmoothingQuality = "high";
  if (scene.picture) c.drawImage(scene.picture, 0, 0, size.width, size.height);
  if (scene.map) {
    c.imageSmoothingEnabled = true;
    c.imageSmoothingQuality = "low"; // bilinear, as the server stretches maps
    c.globalAlpha = scene.map.opacity;
    c.drawImage(scene.map.image, 0, 0, size.width, size.height);
    c.globalAlpha = 1;
  }
  c.lineJoin = "round";
  c.lineCap = "round";
  const px = scene.unit / view.scale; // one screen pixel, wider on large screens
  for (const s of scene.suggestions) outline(c, s.outline, scene.colour(s.class), px, true, false);
  for (const l of scene.lesions) outline(c, l.outline, scene.colour(l.class), px, false, l.lesion === scene.selected);
  if (scene.proposal) outline(c, scene.proposal, scene.current, px, true, true);
  if (scene.live) live(c, scene.live, scene.current, px);
  c.setTransform(pixelRatio, 0, 0, pixelRatio, 0, 0);
  const write = (box: readonly number[], text: string, colour: string) => tag(c, view, box, text, colour, scene.unit);
  for (const l of scene.lesions) write(l.box, `${l.number} ${l.class?.[0]?.toUpperCase() ?? ""}`, scene.colour(l.class));
  for (const s of scene.suggestions) write(s.box, "?", scene.colour(s.class));
  if (scene.ring) ring(c, view, scene.ring, "rgba(255, 255, 255, 0.9)");
  if (scene.pen) ring(c, view, scene.pen, scene.accent, true);
}

/** Marks are solid, suggestions dashed. */
function outline(
  c: CanvasRenderingContext2D,
  rings: readonly Ring[],
  colour: string,
  px: number,
  dashed: boolean,
  strong: boolean,
): void {
  const path = pathOf(rings);
  if (!dashed || strong) {
    c.globalAlpha = strong ? 0.28 : 0.16;
    c.fillStyle = colour;
    c.fill(path, "evenodd");
    c.globalAlpha = 1;
  }
  c.strokeStyle = HALO;
  c.lineWidth = (strong ? 5.5 : 4) * px;
  c.stroke(path);
  c.setLineDash(dashed ? [7 * px, 5 * px] : []);
  c.strokeStyle = colour;
  c.lineWidth = (strong ? 3 : 2) * px;
  c.stroke(path);
  c.setLineDash([]);
}

function live(c: CanvasRenderingContext2D, shape: NonNullable<Scene["live"]>, colour: string, px: number): void {
  const { tool, points, radii } = shape;
  if (tool === "brush" || tool === "scribble" || tool === "eraser") {
    c.globalAlpha = tool === "eraser" ? 0.55 : 0.45;
    c.fillStyle = tool === "eraser" ? "#1b1d22" : colour;
    c.fill(capsules(points, radii));
    c.globalAlpha = 1;
    return;
  }
  const path = new Path2D();
  if (tool === "box" && points.length >= 4) {
    path.rect(points[0]!, points[1]!, points[2]! - points[0]!, points[3]! - points[1]!);
  } else {
    for (let i = 0; i < points.length; i += 2) {
      if (i) path.lineTo(points[i]!, points[i + 1]!);
      else path.moveTo(points[0]!, points[1]!);
    }
  }
  c.strokeStyle = HALO;
  c.lineWidth = 4 * px;
  c.stroke(path);
  c.strokeStyle = colour;
  c.lineWidth = 2 * px;
  c.stroke(path);
  if (tool !== "polygon" || points.length > 24) return; // a lasso has no corners to show
  for (let i = 0; i < points.length; i += 2) {
    c.beginPath();
    c.arc(points[i]!, points[i + 1]!, (i ? 3 : 5) * px, 0, 2 * Math.PI);
    c.fillStyle = i ? colour : "#fff";
    c.fill();
  }
}

/** One path of discs and the quadrilaterals between them, all wound alike so that overlaps do not cancel. */
function capsules(points: readonly number[], radii: readonly number[]): Path2D {
  const path = new Path2D();
  for (let i = 0; i < points.length / 2; i++) {
    const [x, y, r] = [points[2 * i]!, points[2 * i + 1]!, radii[i] ?? radii[0]!];
    path.moveTo(x + r, y);
    path.arc(x, y, r, 0, 2 * Math.PI);
    if (i === 0) continue;
    const [u, v, s] = [points[2 * i - 2]!, points[2 * i - 1]!, radii[i - 1] ?? radii[0]!];
    const d = Math.hypot(x - u, y - v) || 1;
    const [nx, ny] = [(y - v) / d, (u - x) / d];
    path.moveTo(u + nx * s, v + ny * s);
    path.lineTo(x + nx * r, y + ny * r);
    path.lineTo(x - nx * r, y - ny * r);
    path.lineTo(u - nx * s, v - ny * s);
    path.closePath();
  }
  return path;
}

function tag(
  c: CanvasRenderingContext2D,
  view: View,
  box: readonly number[],
  text: string,
  colour: string,
  unit: number,
): void {
  const x = box[0]! * view.scale + view.x;
  const y = Math.max(2, box[1]! * view.scale + view.y - 20 * unit);
  c.font = `600 ${12 * unit}px system-ui, sans-serif`;
  const width = c.measureText(text).width + 10 * unit;
  c.fillStyle = "rgba(10, 11, 14, 0.82)";
  c.beginPath();
  c.roundRect(x, y, width, 17 * unit, 4 * unit);
  c.fill();
  c.fillStyle = colour;
  c.fillText(text, x + 5 * unit, y + 13 * unit);
}

function ring(
  c: CanvasRenderingContext2D,
  view: View,
  { at, radius }: NonNullable<Scene["ring"]>,
  colour: string,
  cross = radius === null,
): void {
  const [x, y] = [at[0] * view.scale + view.x, at[1] * view.scale + view.y];
  c.beginPath();
  if (radius !== null) c.arc(x, y, Math.max(1.5, radius * view.scale), 0, 2 * Math.PI);
  if (cross) {
    for (const [dx, dy] of [
      [1, 0],
      [0, 1],
    ] as const) {
      c.moveTo(x - 11 * dx, y - 11 * dy);
      c.lineTo(x - 3 * dx, y - 3 * dy);
      c.moveTo(x + 3 * dx, y + 3 * dy);
      c.lineTo(x + 11 * dx, y + 11 * dy);
    }
  }
  c.strokeStyle = HALO;
  c.lineWidth = 3;
  c.stroke();
  c.strokeStyle = colour;
  c.lineWidth = 1.25;
  c.stroke();
}
