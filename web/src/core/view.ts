/** Where the image lies on the canvas: screen = image * scale + (x, y), in CSS pixels. */

export interface View {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export type Point = readonly [x: number, y: number];

const LARGEST = 40; // screen pixels per image pixel

/** The whole image in the middle of the canvas. */
export function fit(image: Size, canvas: Size, margin = 8): View {
  const scale = Math.max(
    0.01,
    Math.min((canvas.width - 2 * margin) / image.width, (canvas.height - 2 * margin) / image.height),
  );
  return { scale, x: (canvas.width - image.width * scale) / 2, y: (canvas.height - image.height * scale) / 2 };
}

/** Zooms by `factor`; the image point under `at` (on screen) stays under it. */
export function zoom(view: View, at: Point, factor: number, smallest: number): View {
  const scale = Math.min(LARGEST, Math.max(smallest, view.scale * factor));
  const k = scale / view.scale;
  return { scale, x: at[0] - (at[0] - view.x) * k, y: at[1] - (at[1] - view.y) * k };
}

export function pan(view: View, dx: number, dy: number): View {
  return { ...view, x: view.x + dx, y: view.y + dy };
}

/** Moves the view so that at least a quarter of the canvas or the whole image stays in sight. */
export function keepInSight(view: View, image: Size, canvas: Size): View {
  const kept = (offset: number, length: number, room: number) => {
    const least = Math.min(length, room / 4);
    return Math.min(room - least, Math.max(least - length, offset));
  };
  return {
    scale: view.scale,
    x: kept(view.x, image.width * view.scale, canvas.width),
    y: kept(view.y, image.height * view.scale, canvas.height),
  };
}

export const toImage = (view: View, [x, y]: Point): Point => [(x - view.x) / view.scale, (y - view.y) / view.scale];

export const toScreen = (view: View, [x, y]: Point): Point => [x * view.scale + view.x, y * view.scale + view.y];

/** Two fingers moved: the image follows both their middle and their distance. */
export function pinch(view: View, before: [Point, Point], after: [Point, Point], smallest: number): View {
  const middle = ([a, b]: [Point, Point]): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  const spread = ([a, b]: [Point, Point]) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
  const from = middle(before);
  const to = middle(after);
  return zoom(pan(view, to[0] - from[0], to[1] - from[1]), to, spread(after) / spread(before), smallest);
}
