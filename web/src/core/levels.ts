/** Window and level: grey values in 0..255 that become black and white. */

export interface Levels {
  readonly level: number; // middle of the window
  readonly window: number; // its width
}

export const WHOLE: Levels = { level: 128, window: 256 };

export function clampLevels({ level, window }: Levels): Levels {
  return { level: Math.min(255, Math.max(0, Math.round(level))), window: Math.min(512, Math.max(4, Math.round(window))) };
}

/** New grey value for each old one. */
export function table({ level, window }: Levels): Uint8ClampedArray {
  const values = new Uint8ClampedArray(256);
  for (let v = 0; v < 256; v++) values[v] = ((v + 0.5 - level) / window + 0.5) * 255.999 - 0.5;
  return values;
}

/** Applies a table to the colours of RGBA pixels in place. */
export function applyTable(rgba: Uint8ClampedArray, values: Uint8ClampedArray): void {
  for (let i = 0; i < rgba.length; i += 4) {
    rgba[i] = values[rgba[i]!]!;
    rgba[i + 1] = values[rgba[i + 1]!]!;
    rgba[i + 2] = values[rgba[i + 2]!]!;
  }
}
