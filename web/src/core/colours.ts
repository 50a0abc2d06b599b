/** Colours of classes and maps. */

/**
 * Okabe and Ito (2008), lifted for a dark background; the first is for the normal class. Orange is left out: it is the
 * accent of the page. Class colours never stand alone: a letter or a name is beside each.
 */
const PALETTE = ["#35c49a", "#5bb8f0", "#f2704a", "#d793bd", "#f0e45c", "#9aa8ff", "#c9b38c", "#8fd0c8"];

export function classColour(classes: readonly { name: string; normal: boolean }[], name: string | null): string {
  const normal = classes.find((c) => c.normal)?.name;
  if (name === null) return "#c4cad3";
  if (name === normal) return PALETTE[0]!;
  const at = classes.filter((c) => !c.normal).findIndex((c) => c.name === name);
  return at < 0 ? "#f2704a" : PALETTE[1 + (at % (PALETTE.length - 1))]!;
}

/** Stops of a heat ramp of rising lightness (after "inferno" of matplotlib, CC0), as r, g, b. */
const RAMP = [
  [40, 11, 84],
  [101, 21, 110],
  [159, 42, 99],
  [212, 72, 66],
  [245, 125, 21],
  [250, 193, 39],
  [252, 255, 164],
] as const;

/** Colour of a map value in 0..1 as r, g, b. */
export function heat(value: number): [number, number, number] {
  const at = Math.min(1, Math.max(0, value)) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(at));
  const [from, to] = [RAMP[i]!, RAMP[i + 1]!];
  const mix = (k: 0 | 1 | 2) => Math.round(from[k] + (to[k] - from[k]) * (at - i));
  return [mix(0), mix(1), mix(2)];
}

/** RGBA pixels of a map on its own grid: clear up to 0.1, so that the speckle stays visible, and full from 0.6. */
export function heatPixels(values: Uint16Array, width: number, height: number): ImageData {
  const image = new ImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const v = values[i]! / 65535;
    const [r, g, b] = heat(v);
    image.data.set([r, g, b, Math.round(255 * Math.min(1, Math.max(0, 2 * (v - 0.1))))], 4 * i);
  }
  return image;
}
