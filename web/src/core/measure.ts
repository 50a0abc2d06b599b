/** Sizes and words for a lesion that only the browser knows so far. */

import type { Lesion, Ring } from "../types";

/** Signed area by the shoelace formula; summed over the rings, holes count negative or positive alike by direction. */
export function area(rings: readonly Ring[]): number {
  let twice = 0;
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      const [xa, ya] = [ring[i]!, ring[i + 1]!];
      const [xb, yb] = [ring[(i + 2) % ring.length]!, ring[(i + 3) % ring.length]!];
      twice += xa * yb - xb * ya;
    }
  }
  return Math.abs(twice) / 2;
}

/** Even-odd test of a point against rings. */
export function contains(rings: readonly Ring[], x: number, y: number): boolean {
  let odd = false;
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      const [xa, ya] = [ring[i]!, ring[i + 1]!];
      const [xb, yb] = [ring[(i + 2) % ring.length]!, ring[(i + 3) % ring.length]!];
      if (ya > y !== yb > y && x < xa + ((y - ya) * (xb - xa)) / (yb - ya)) odd = !odd;
    }
  }
  return odd;
}

type XY = readonly [number, number];

/**
 * Long and short axis of rings on pixel edges, in the units of `scale` (per column, per row): the largest distance between
 * middles of outer pixel edges, and the longest chord of their hull across it. The server measures alike.
 */
export function axes(rings: readonly Ring[], scale: XY = [1, 1]): [number, number] {
  const hull = convexHull(rings, scale);
  let long = 0;
  let way: XY = [1, 0];
  for (const p of hull) {
    for (const q of hull) {
      const d = Math.hypot(q[0] - p[0], q[1] - p[1]);
      if (d > long) [long, way] = [d, [(q[0] - p[0]) / d, (q[1] - p[1]) / d]];
    }
  }
  const turned = hull.map(([x, y]): XY => [x * way[0] + y * way[1], y * way[0] - x * way[1]]);
  let short = 0;
  for (const [s] of turned) {
    const across = turned.flatMap(([s0, t0], i) => {
      const [s1, t1] = turned[(i + 1) % turned.length]!;
      if (Math.min(s0, s1) > s || Math.max(s0, s1) < s) return [];
      return s0 === s1 ? [t0, t1] : [t0 + ((s - s0) / (s1 - s0)) * (t1 - t0)];
    });
    short = Math.max(short, Math.max(...across) - Math.min(...across));
  }
  return [long, short];
}

/** Andrew's monotone chain (1979). */
function convexHull(rings: readonly Ring[], scale: XY): XY[] {
  const points: XY[] = [];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      const [xa, ya] = [ring[i]!, ring[i + 1]!];
      const [xb, yb] = [ring[(i + 2) % ring.length]!, ring[(i + 3) % ring.length]!];
      const half = 0.5 / (Math.hypot(xb - xa, yb - ya) || 1);
      for (const t of [half, 1 - half]) points.push([(xa + t * (xb - xa)) * scale[0], (ya + t * (yb - ya)) * scale[1]]);
    }
  }
  points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const side = (ordered: XY[]) => {
    const chain: XY[] = [];
    for (const p of ordered) {
      while (chain.length > 1 && turn(chain.at(-2)!, chain.at(-1)!, p) <= 0) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  return [...side(points), ...side([...points].reverse())];
}

const turn = (o: XY, a: XY, b: XY) =>
  (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);

/** "lesion 1, malignant, 21 x 11 mm"; in pixels where the spacing is not trusted. */
export function describe({ number, class: cls, size_px, size_mm }: Omit<Lesion, "text">): string {
  const [long, short] = size_mm ?? size_px;
  return `lesion ${number}, ${cls ?? "no class yet"}, ${Math.round(long)} x ${Math.round(short)} ${size_mm ? "mm" : "pixels"}`;
}
