/** Sensitivity and specificity over the threshold. */

import type { CurvePoint, Interval } from "../types";

/** The last entry at or below the threshold: the curve is a step function. */
export function at(curve: readonly CurvePoint[], threshold: number): CurvePoint | null {
  let found: CurvePoint | null = curve[0] ?? null;
  for (const point of curve) if (point.threshold <= threshold + 1e-9) found = point;
  return found;
}

/** "0.83" and "0.44 to 0.97"; a dash where it is undefined. */
export function rate(value: Interval | null | undefined): [value: string, interval: string] {
  return value ? [value[0].toFixed(2), `${value[1].toFixed(2)} to ${value[2].toFixed(2)}`] : ["–", ""];
}
