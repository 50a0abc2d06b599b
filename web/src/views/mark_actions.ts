/** What the keys do in Mark; the buttons call the same functions. */

import { setView, smallestZoom, stageSize, viewNow } from "../canvas/stage";
import { WHOLE } from "../core/levels";
import { zoom, type Point } from "../core/view";
import { play, toFrame } from "../state/cine";
import * as editor from "../state/editor";
import { say } from "../state/live";
import { label, step } from "../state/marks";
import { brush, showMap, showSuggestions } from "../state/prefs";
import { classes } from "../state/project";
import * as voice from "../state/voice";
import { agree, reviewing, skip, suggested, walk } from "../state/walk";
import type { Actions } from "../ui/keyboard";

export function grow(factor: number): void {
  brush.value = Math.min(150, Math.max(2, Math.round(brush.value * factor * 10) / 10));
  say(`brush radius ${editor.radius.value} pixels`);
}

export function zoomBy(factor: number): void {
  const middle: Point = [stageSize.width / 2, stageSize.height / 2];
  setView(zoom(viewNow(), middle, factor, smallestZoom(editor.detail.value ?? stageSize)));
}

export function back(direction: "undo" | "redo"): void {
  const now = editor.shownFrame.value;
  const shape = editor.shape.value;
  if (direction === "undo" && editor.proposal.value) editor.drop();
  else if (direction === "undo" && shape?.tool === "polygon" && shape.points.length > 2) {
    editor.shape.value = { ...shape, points: shape.points.slice(0, -2) }; // one corner
  } else if (direction === "undo" && shape) editor.drop();
  else if (now) void step(direction, now.image, now.frame);
}

export function accept(): void {
  if (editor.drawing.value) editor.finish();
  else if (editor.justClosed()) say("The polygon is closed already");
  else if (reviewing()) void agree();
  else if (!showSuggestions.value) say("Suggestions are hidden: H shows them");
  else if (editor.open.value[0]) editor.accept(editor.open.value[0]);
  else say("There is no suggestion on this frame");
}

function removeSelected(): void {
  const lesion = editor.marks.value?.lesions.find((l) => l.lesion === editor.selected.value);
  if (lesion) editor.remove(lesion);
  else say("Select a lesion first (V, or in the list)");
}

export function togglePen(): void {
  const d = editor.detail.value;
  if (!d) return;
  if (editor.pen.value) {
    editor.pen.value = null;
    editor.drop();
    say("keyboard pen off");
    return;
  }
  const { scale, x, y } = viewNow();
  const middle: Point = [(stageSize.width / 2 - x) / scale, (stageSize.height / 2 - y) / scale];
  editor.pen.value = [Math.round(middle[0]), Math.round(middle[1])];
  say("keyboard pen on: arrows move it, Space begins and ends a stroke, K leaves");
}

function movePen(dx: number, dy: number, keys: string): void {
  const at = editor.pen.value;
  const d = editor.detail.value;
  if (!at || !d) return;
  const by = keys.startsWith("Shift+") ? 10 : 1;
  const next: Point = [
    Math.min(d.width, Math.max(0, at[0] + dx * by)),
    Math.min(d.height, Math.max(0, at[1] + dy * by)),
  ];
  editor.pen.value = next;
  editor.extend(next, "keyboard", 0.5, Infinity);
}

/** Space of the keyboard pen: begins, ends, or sets a corner. */
function press(): void {
  const at = editor.pen.value;
  if (!at) return;
  const shape = editor.shape.value;
  if (editor.tool.value === "select") editor.selected.value = editor.lesionAt(at)?.lesion ?? null;
  else if (editor.tool.value === "polygon") {
    editor.begin(at, "keyboard", 0.5);
    editor.lift(at, viewNow().scale);
  } else if (shape) editor.finish();
  else {
    editor.begin(at, "keyboard", 0.5);
    say("stroke begun");
  }
}

export function actions(): Actions {
  const classAt = (n: number) => classes.value[n - 1]?.name;
  const numbered: Actions = {};
  for (const n of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    numbered[`class${n}`] = () => {
      const name = classAt(n);
      if (name) editor.takeClass(name);
    };
    numbered[`label${n}`] = () => {
      const [name, now] = [classAt(n), editor.shownFrame.value];
      if (name && now) label(now.image, now.frame, name);
    };
  }
  return {
    ...numbered,
    brush: () => editor.takeTool("brush"),
    eraser: () => editor.takeTool("eraser"),
    polygon: () => editor.takeTool("polygon"),
    box: () => editor.takeTool("box"),
    scribble: () => editor.takeTool("scribble"),
    select: () => editor.takeTool("select"),
    smaller: () => grow(0.8),
    larger: () => grow(1.25),
    undo: () => back("undo"),
    redo: () => back("redo"),
    speak: () => void voice.press(),
    accept: () => (voice.shown.value ? voice.accept() : accept()),
    cancel: () => {
      if (voice.shown.value) voice.drop();
      else if (editor.drawing.value) {
        editor.drop();
        say("dropped");
      } else if (editor.pen.value) togglePen();
      else editor.selected.value = null;
    },
    remove: removeSelected,
    apart: () => {
      editor.apart.value = !editor.apart.value;
      say(editor.apart.value ? "the next stroke is a new lesion" : "touching strokes of one class are one lesion");
    },
    previous: () => void walk(-1),
    next: () => void walk(1),
    back: () => void walk(-1),
    suggested: () => void suggested(),
    skip: () => void skip(),
    overlay: () => {
      showMap.value = !showMap.value;
      say(showMap.value ? "map shown" : "map hidden");
    },
    suggestions: () => {
      showSuggestions.value = !showSuggestions.value;
      say(showSuggestions.value ? "suggestions shown" : "suggestions hidden");
    },
    play,
    frameBack: () => toFrame(-1),
    frameOn: () => toFrame(1),
    copy: () => {
      if (editor.copyOn()) toFrame(1);
    },
    fit: () => (editor.view.value = null),
    zoomIn: () => zoomBy(1.25),
    zoomOut: () => zoomBy(0.8),
    levels: () => (editor.levels.value = WHOLE),
    cursor: togglePen,
    cursorLeft: (keys) => movePen(-1, 0, keys),
    cursorRight: (keys) => movePen(1, 0, keys),
    cursorUp: (keys) => movePen(0, -1, keys),
    cursorDown: (keys) => movePen(0, 1, keys),
    pen: press,
  };
}
