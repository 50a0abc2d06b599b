/** Actions, their keys, and the rule that no key means two things at once. */

/** Where an action works. "cursor" is the keyboard pen of Mark: its keys come before those of Mark. */
export type Place = "any" | "mark" | "grid" | "cursor";

export interface Action {
  readonly id: string;
  readonly words: string;
  readonly place: Place;
  readonly keys: readonly string[];
}

export type Bindings = Readonly<Record<string, readonly string[]>>;

const action = (place: Place, id: string, words: string, ...keys: string[]): Action => ({ id, words, place, keys });

const NUMBERS = [1, 2, 3, 4, 5, 6, 7, 8, 9];

export const ACTIONS: readonly Action[] = [
  action("any", "help", "show the keys", "?"),
  action("any", "adapt", "adapt the model", "Shift+Enter"),
  action("mark", "brush", "brush", "B"),
  action("mark", "eraser", "eraser", "E"),
  action("mark", "polygon", "polygon or lasso", "P"),
  action("mark", "box", "box", "R"),
  action("mark", "scribble", "scribble", "G"),
  action("mark", "select", "select a lesion", "V"),
  action("mark", "smaller", "smaller brush", "["),
  action("mark", "larger", "larger brush", "]"),
  ...NUMBERS.map((n) => action("mark", `class${n}`, `class ${n} as shown`, `${n}`)),
  ...NUMBERS.map((n) => action("mark", `label${n}`, `whole image is class ${n}`, `Shift+${n}`)),
  action("mark", "undo", "undo", "Z", "Ctrl+Z"),
  action("mark", "redo", "redo", "Shift+Z", "Ctrl+Shift+Z", "Ctrl+Y"),
  action("mark", "accept", "accept the suggestion, finish the shape", "Enter"),
  action("mark", "cancel", "drop the unfinished shape", "Escape"),
  action("mark", "remove", "delete the selected lesion", "Delete"),
  action("mark", "apart", "next stroke is a new lesion", "X"),
  action("mark", "previous", "previous image", "A", "ArrowLeft"),
  action("mark", "next", "next image", "D", "ArrowRight"),
  action("mark", "back", "back in the review", "Backspace"),
  action("mark", "suggested", "next suggested image", "N"),
  action("mark", "skip", "skip this image", "S"),
  action("mark", "speak", "hold and say a word, tap to accept it", "T"),
  action("mark", "overlay", "map on or off", "O"),
  action("mark", "suggestions", "suggestions on or off", "H"),
  action("mark", "play", "play or stop the cine", "Space"),
  action("mark", "frameBack", "frame back", ","),
  action("mark", "frameOn", "frame on", "."),
  action("mark", "copy", "copy marks to the next frame", "C"),
  action("mark", "fit", "whole image", "0"),
  action("mark", "zoomIn", "zoom in", "+", "="),
  action("mark", "zoomOut", "zoom out", "-"),
  action("mark", "levels", "reset window and level", "W"),
  action("mark", "cursor", "draw with the keyboard, on or off", "K"),
  action("cursor", "cursorLeft", "pen left (Shift: ten pixels)", "ArrowLeft", "Shift+ArrowLeft"),
  action("cursor", "cursorRight", "pen right", "ArrowRight", "Shift+ArrowRight"),
  action("cursor", "cursorUp", "pen up the image", "ArrowUp", "Shift+ArrowUp"),
  action("cursor", "cursorDown", "pen down the image", "ArrowDown", "Shift+ArrowDown"),
  action("cursor", "pen", "begin or end a stroke, set a corner", "Space"),
  ...NUMBERS.map((n) => action("grid", `tile${n}`, `image is class ${n}`, `${n}`)),
];

export interface KeyPress {
  key: string;
  code: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
  getModifierState?(name: string): boolean;
}

/** "Ctrl+Shift+Z", "?", "Space". Command on a Mac counts as Ctrl; signs are named without the Shift that types them. */
export function chord(press: KeyPress): string | null {
  if (["Control", "Shift", "Alt", "Meta", "AltGraph", "Dead", "Process", "Unidentified"].includes(press.key)) return null;
  const altGraph = press.getModifierState?.("AltGraph") ?? false;
  const digit = /^Digit(\d)$/.exec(press.code)?.[1];
  let name = press.key;
  let shift = press.shiftKey;
  if (digit && (shift || /^\d$/.test(name)) && !altGraph && !"?=+-[],.".includes(name)) name = digit;
  else if (name === " ") name = "Space";
  else if (/^\p{L}$/u.test(name)) name = name.toUpperCase();
  else if (name.length === 1) shift = false;
  const ctrl = (press.ctrlKey || press.metaKey) && !altGraph;
  return `${ctrl ? "Ctrl+" : ""}${press.altKey && !altGraph ? "Alt+" : ""}${shift ? "Shift+" : ""}${name}`;
}

/** True for keys that type a character: WCAG 2.1.4 wants them to be switchable off. */
export const types = (keys: string): boolean => /^(Shift\+)?(.|Space)$/u.test(keys);

export function keysOf(action: Action, own: Bindings): readonly string[] {
  return own[action.id] ?? action.keys;
}

/** The action a key stands for; `places` from the innermost outward. */
export function find(keys: string, places: readonly Place[], own: Bindings): Action | null {
  for (const place of places) {
    const found = ACTIONS.find((a) => a.place === place && keysOf(a, own).includes(keys));
    if (found) return found;
  }
  return null;
}

function together(a: Place, b: Place): boolean {
  return a === b || a === "any" || b === "any";
}

/** Pairs of actions that one key would start at once. */
export function clashes(own: Bindings): { keys: string; first: Action; second: Action }[] {
  const found = [];
  for (const [i, first] of ACTIONS.entries()) {
    for (const second of ACTIONS.slice(i + 1)) {
      if (!together(first.place, second.place)) continue;
      const both = keysOf(second, own).filter((k) => keysOf(first, own).includes(k));
      for (const keys of both) found.push({ keys, first, second });
    }
  }
  return found;
}

/** The bindings with one more change, or the action that has the key already. */
export function rebind(own: Bindings, id: string, keys: readonly string[]): { own: Bindings } | { taken: Action } {
  const changed = { ...own, [id]: keys };
  const clash = clashes(changed).find((c) => c.first.id === id || c.second.id === id);
  if (clash) return { taken: clash.first.id === id ? clash.second : clash.first };
  return { own: changed };
}

/** True where a key press belongs to the element it is typed into. */
export function belongsTo(element: { tagName: string; type?: string; isContentEditable?: boolean }, keys: string): boolean {
  if (element.isContentEditable) return true;
  const tag = element.tagName;
  const type = element.type ?? "";
  if (tag === "TEXTAREA" || tag === "SELECT") return true;
  if (tag === "INPUT" && !["checkbox", "radio", "range", "button", "submit", "file"].includes(type)) return true;
  const plain = keys.replace(/^Shift\+/, "");
  if (tag === "INPUT" && (type === "range" || type === "radio")) {
    return /^(Arrow|Page|Home|End)/.test(plain) || plain === "Space";
  }
  if (["BUTTON", "A", "SUMMARY", "INPUT"].includes(tag)) return keys === "Enter" || keys === "Space";
  return false;
}
