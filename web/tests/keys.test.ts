import { expect, test } from "vitest";
import { ACTIONS, belongsTo, chord, clashes, find, keysOf, rebind, types, type KeyPress } from "../src/core/keys";

const press = (key: string, more: Partial<KeyPress> = {}): KeyPress => ({
  key,
  code: "",
  ctrlKey: false,
  metaKey: false,
  altKey: false,
  shiftKey: false,
  ...more,
});

test("no key means two things at once", () => {
  expect(clashes({})).toEqual([]);
});

test("a clash is noticed", () => {
  expect(clashes({ eraser: ["B"] }).map((c) => c.keys)).toEqual(["B"]);
  expect(clashes({ help: ["ArrowLeft"] }).length).toBeGreaterThan(0);
});

test("the keys of the specification start what they should", () => {
  const wanted: [string, string][] = [
    ["B", "brush"],
    ["E", "eraser"],
    ["P", "polygon"],
    ["R", "box"],
    ["V", "select"],
    ["1", "class1"],
    ["3", "class3"],
    ["[", "smaller"],
    ["]", "larger"],
    ["Z", "undo"],
    ["Shift+Z", "redo"],
    ["Ctrl+Z", "undo"],
    ["Ctrl+Shift+Z", "redo"],
    ["A", "previous"],
    ["D", "next"],
    ["ArrowLeft", "previous"],
    ["ArrowRight", "next"],
    ["N", "suggested"],
    ["S", "skip"],
    ["O", "overlay"],
    ["H", "suggestions"],
    ["Space", "play"],
    [",", "frameBack"],
    [".", "frameOn"],
    ["Enter", "accept"],
    ["Backspace", "back"],
    ["Shift+Enter", "adapt"],
    ["T", "speak"],
    ["?", "help"],
  ];
  for (const [keys, id] of wanted) expect(find(keys, ["mark", "any"], {})?.id, keys).toBe(id);
});

test("the keyboard pen takes the arrows and Space while it is on", () => {
  expect(find("ArrowLeft", ["cursor", "mark", "any"], {})?.id).toBe("cursorLeft");
  expect(find("Space", ["cursor", "mark", "any"], {})?.id).toBe("pen");
  expect(find("Enter", ["cursor", "mark", "any"], {})?.id).toBe("accept");
});

test("key presses are named alike on all layouts", () => {
  expect(chord(press("b"))).toBe("B");
  expect(chord(press("Z", { shiftKey: true, ctrlKey: true }))).toBe("Ctrl+Shift+Z");
  expect(chord(press("z", { metaKey: true }))).toBe("Ctrl+Z");
  expect(chord(press("?", { shiftKey: true, code: "Slash" }))).toBe("?");
  expect(chord(press(" "))).toBe("Space");
  expect(chord(press("!", { shiftKey: true, code: "Digit1" }))).toBe("Shift+1");
  expect(chord(press("&", { code: "Digit1" }))).toBe("&"); // French: no digit without Shift
  expect(chord(press("[", { ctrlKey: true, altKey: true, code: "Digit8", getModifierState: () => true }))).toBe("[");
  expect(chord(press("Shift", { shiftKey: true }))).toBeNull();
});

test("a key that is taken cannot be bound again, a free one can", () => {
  const taken = rebind({}, "eraser", ["B"]);
  expect("taken" in taken && taken.taken.id).toBe("brush");
  const free = rebind({}, "eraser", ["Q"]);
  expect("own" in free && find("Q", ["mark"], free.own)?.id).toBe("eraser");
  expect("own" in free && find("E", ["mark"], free.own)).toBeNull();
});

test("keys belong to the field that is typed into, and to the button that is pressed", () => {
  expect(belongsTo({ tagName: "INPUT", type: "search" }, "B")).toBe(true);
  expect(belongsTo({ tagName: "TEXTAREA" }, "Enter")).toBe(true);
  expect(belongsTo({ tagName: "SELECT" }, "B")).toBe(true);
  expect(belongsTo({ tagName: "INPUT", type: "range" }, "ArrowLeft")).toBe(true);
  expect(belongsTo({ tagName: "INPUT", type: "range" }, "B")).toBe(false);
  expect(belongsTo({ tagName: "BUTTON" }, "Enter")).toBe(true);
  expect(belongsTo({ tagName: "BUTTON" }, "Ctrl+Z")).toBe(false);
  expect(belongsTo({ tagName: "CANVAS" }, "Space")).toBe(false);
});

test("every key that types a character is known as one, so that it can be switched off", () => {
  const single = ACTIONS.flatMap((a) => keysOf(a, {})).filter(types);
  expect(single).toContain("B");
  expect(single).toContain("?");
  expect(single).toContain("Shift+Z");
  for (const keys of ["Ctrl+Z", "Enter", "Shift+Enter", "ArrowLeft", "Escape", "Delete"]) expect(single).not.toContain(keys);
});
