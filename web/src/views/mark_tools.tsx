/** Tools beside the image, and the cine below it. */

import { useEffect } from "preact/hooks";
import { play, toFrame } from "../state/cine";
import * as editor from "../state/editor";
import { picture } from "../state/pixels";
import { replace } from "../state/route";
import { Icon, type IconName } from "../ui/icons";
import { backToStage } from "../ui/keyboard";
import { Tool } from "../ui/parts";
import { back, grow, zoomBy } from "./mark_actions";

const TOOLS: readonly [editor.Tool & IconName, string][] = [
  ["brush", "Brush"],
  ["eraser", "Eraser"],
  ["polygon", "Polygon, or drag a lasso"],
  ["box", "Box"],
  ["scribble", "Scribble"],
  ["select", "Select and move"],
];

export function Tools() {
  const marks = editor.marks.value;
  const busy = editor.drawing.value;
  return (
    <div class="tools" role="toolbar" aria-label="Tools" onClick={backToStage}>
      <div class="group">
        {TOOLS.map(([name, words]) => (
          <Tool
            key={name}
            icon={name}
            label={words}
            action={name}
            pressed={editor.tool.value === name}
            onClick={() => editor.takeTool(name)}
          />
        ))}
      </div>
      <div class="group">
        <Tool
          icon="undo"
          label={marks?.undo ? `Undo ${marks.undo_text ?? ""}` : "Undo"}
          action="undo"
          disabled={!marks?.undo && !busy}
          onClick={() => back("undo")}
        />
        <Tool
          icon="redo"
          label={marks?.redo ? `Redo ${marks.redo_text ?? ""}` : "Redo"}
          action="redo"
          disabled={!marks?.redo}
          onClick={() => back("redo")}
        />
      </div>
      <div class="group">
        <Tool icon="smaller" label="Smaller brush" action="smaller" onClick={() => grow(0.8)} />
        <span class="brush-size" title="Brush radius in pixels of the image">
          {editor.radius.value < 10 ? editor.radius.value.toFixed(1) : Math.round(editor.radius.value)}
        </span>
        <Tool icon="larger" label="Larger brush" action="larger" onClick={() => grow(1.25)} />
      </div>
      <div class="group">
        <Tool icon="zoomIn" label="Zoom in" action="zoomIn" onClick={() => zoomBy(1.25)} />
        <Tool icon="zoomOut" label="Zoom out" action="zoomOut" onClick={() => zoomBy(0.8)} />
        <Tool icon="fit" label="Whole image" action="fit" onClick={() => (editor.view.value = null)} />
      </div>
    </div>
  );
}

export function Cine() {
  const now = editor.shownFrame.value!;
  const d = editor.detail.value!;
  const at = editor.playing.value ?? now.frame;
  useEffect(() => {
    if (now.frame + 1 < d.frames) picture(now.image, now.frame + 1).catch(() => undefined); // ready for ". "
  }, [now.image, now.frame]);
  const marked = d.frame_items.filter((f) => f.lesions > 0 || f.label);
  const playing = editor.playing.value !== null;
  return (
    <div class="cine" role="group" aria-label="Cine" onClick={backToStage}>
      <Tool icon={playing ? "stop" : "play"} label={playing ? "Stop" : "Play"} action="play" onClick={play} />
      <Tool icon="left" label="Frame back" action="frameBack" disabled={at === 0} onClick={() => toFrame(-1)} />
      <div class="scrub">
        <svg class="scores" viewBox={`0 0 ${d.frames} 20`} preserveAspectRatio="none" aria-hidden="true">
          {d.frame_items.map((f) => (
            <rect
              key={f.frame}
              class={f.lesions > 0 || f.label ? "has-marks" : ""}
              x={f.frame + 0.1}
              width={0.8}
              y={20 - 20 * (f.pred?.score ?? 0.1)}
              height={20}
            />
          ))}
        </svg>
        <input
          type="range"
          min={0}
          max={d.frames - 1}
          value={at}
          aria-label="Frame"
          aria-valuetext={`frame ${at + 1} of ${d.frames}`}
          onInput={(e) => {
            editor.playing.value = null;
            replace("mark", now.image, Number(e.currentTarget.value));
          }}
        />
      </div>
      <Tool icon="right" label="Frame on" action="frameOn" disabled={at + 1 >= d.frames} onClick={() => toFrame(1)} />
      <span class="number">
        {at + 1}/{d.frames}
      </span>
      <button type="button" class="plain" onClick={() => replace("mark", now.image, d.best)} disabled={d.best === at}>
        Best frame {d.best + 1}
      </button>
      <Tool
        icon="copy"
        label="Copy marks to the next frame"
        action="copy"
        disabled={!editor.marks.value?.lesions.length || at + 1 >= d.frames}
        onClick={() => {
          if (editor.copyOn()) toFrame(1);
        }}
      />
      {marked.length > 0 && <span class="muted">marked: {marked.map((f) => f.frame + 1).join(", ")}</span>}
      {playing && <Icon name="film" />}
    </div>
  );
}
