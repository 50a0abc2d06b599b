/** Pictures and maps that were fetched; the ones used longest ago are let go. */

import * as api from "../api";
import { heatPixels } from "../core/colours";
import type { HeatMap } from "../types";

const MOST_PIXELS = 64e6; // of pictures kept, four bytes each
const MOST_MAPS = 300;
const LONGEST = 4096; // a picture larger than this is shown reduced; marks stay in its own pixels

const pictures = new Map<string, Promise<ImageBitmap>>();
const sizes = new Map<string, number>();

export function picture(id: string, frame: number): Promise<ImageBitmap> {
  const key = `${id}/${frame}`;
  let it = pictures.get(key);
  if (it) pictures.delete(key);
  it ??= api.pixels(id, frame, LONGEST).then(
    (bitmap) => {
      sizes.set(key, bitmap.width * bitmap.height);
      letGo(key);
      return bitmap;
    },
    (error: unknown) => {
      pictures.delete(key);
      throw error;
    },
  );
  pictures.set(key, it); // newest last
  return it;
}

function letGo(keep: string): void {
  let sum = [...sizes.values()].reduce((a, b) => a + b, 0);
  for (const key of pictures.keys()) {
    if (sum <= MOST_PIXELS) return;
    if (key === keep) continue;
    sum -= sizes.get(key) ?? 0;
    sizes.delete(key);
    pictures.delete(key); // not closed: a view may still draw it
  }
}

export interface ShownMap {
  map: HeatMap;
  image: OffscreenCanvas;
}

const maps = new Map<string, Promise<ShownMap | null>>();

/** The map of a frame, coloured; the newest there is unless a model is named. */
export function shownMap(id: string, frame: number, model?: number): Promise<ShownMap | null> {
  const key = `${id}/${frame}/${model ?? "newest"}`;
  let it = maps.get(key);
  if (!it) {
    it = api.heatMap(id, frame, model).then((map) => (map ? coloured(map) : null));
    it.catch(() => maps.delete(key));
    maps.set(key, it);
    if (maps.size > MOST_MAPS) maps.delete(maps.keys().next().value!);
  }
  return it;
}

function coloured(map: HeatMap): ShownMap {
  const image = new OffscreenCanvas(map.width, map.height);
  image.getContext("2d")!.putImageData(heatPixels(map.values, map.width, map.height), 0, 0);
  return { map, image };
}

/** New maps are there: the newest ones of these images are asked for again when they are looked at. */
export function forgetMaps(ids: readonly string[]): void {
  const gone = new Set(ids);
  for (const key of maps.keys()) {
    if (key.endsWith("/newest") && gone.has(key.slice(0, key.indexOf("/")))) maps.delete(key);
  }
}

export function forgetAllMaps(): void {
  maps.clear();
}
