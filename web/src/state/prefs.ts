/** What one person sets for one browser; kept in localStorage, never sent. */

import { effect, signal, type Signal } from "@preact/signals";
import type { Bindings } from "../core/keys";

function kept<V>(name: string, first: V): Signal<V> {
  let value = first;
  try {
    const stored = localStorage.getItem(`ultraad.${name}`);
    if (stored !== null) value = JSON.parse(stored) as V;
  } catch {
    // no storage, or not ours: the first value
  }
  const it = signal(value);
  let started = false;
  effect(() => {
    const text = JSON.stringify(it.value);
    if (started) {
      try {
        localStorage.setItem(`ultraad.${name}`, text);
      } catch {
        // lasts for this visit only
      }
    }
    started = true;
  });
  return it;
}

export const theme = kept<"dark" | "light">("theme", "dark");
export const rater = kept("rater", "");
export const opacity = kept("opacity", 0.45);
export const brush = kept("brush", 18); // radius in thousandths of the image's longer side
export const showMap = kept("showMap", true);
export const showSuggestions = kept("showSuggestions", true);
export const singleKeys = kept("singleKeys", true);
export const bindings = kept<Bindings>("keys", {});
export const tile = kept("tile", 200);
export const seenPen = kept("seenPen", false); // then fingers pan and the pen draws

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

/** The name rows are saved under. */
export const name = (): string => rater.value.trim() || "rater 1";
