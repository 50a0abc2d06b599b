/** Keys to actions. A view offers its actions while it is shown. */

import { held } from "../canvas/pointer";
import { belongsTo, chord, find, types, type Place } from "../core/keys";
import { pen } from "../state/editor";
import { bindings, singleKeys } from "../state/prefs";
import * as voice from "../state/voice";

export type Actions = Record<string, (keys: string) => void>;

const offered = new Map<Place, Actions>();

/** Actions of a place until the returned function is called. */
export function offer(place: Place, actions: Actions): () => void {
  offered.set(place, actions);
  return () => {
    if (offered.get(place) === actions) offered.delete(place);
  };
}

const REPEATS = /^(previous|next|frameBack|frameOn|undo|redo|smaller|larger|zoomIn|zoomOut|cursor(Left|Right|Up|Down))$/;

let playKey = "";
let speakKey = "";

function down(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const keys = chord(event);
  if (keys === null) return;
  if (event.target instanceof HTMLElement && belongsTo(event.target, keys)) return;
  if (!singleKeys.value && types(keys)) return;
  const places = (["cursor", "mark", "grid", "any"] as const).filter(
    (place) => offered.has(place) && (place !== "cursor" || pen.value !== null),
  );
  const action = find(keys, places, bindings.value);
  const run = action && offered.get(action.place)?.[action.id];
  if (!action || !run) return;
  event.preventDefault();
  if (event.repeat && !REPEATS.test(action.id)) return;
  if (action.id === "play") {
    held.down = true; // plays when it is let go, unless it moved the image meanwhile
    held.used = false;
    playKey = event.code;
    return;
  }
  if (action.id === "speak") speakKey = event.code; // it ends when the key is let go
  run(keys);
}

function up(event: KeyboardEvent): void {
  if (speakKey && event.code === speakKey) {
    speakKey = "";
    void voice.release();
  }
  if (!held.down || event.code !== playKey) return;
  held.down = false;
  if (!held.used) offered.get("mark")?.["play"]?.("Space");
}

export function startKeyboard(): void {
  addEventListener("keydown", down);
  addEventListener("keyup", up);
  addEventListener("blur", () => {
    held.down = false;
    speakKey = "";
    voice.cancel();
  });
}

/** After a click with the mouse the keys go to the image again, so that Enter does not press the button twice. */
export function backToStage(event: MouseEvent): void {
  if (event.detail > 0) document.getElementById("stage")?.focus({ preventScroll: true });
}
