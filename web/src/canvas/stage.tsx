/** The canvas of Mark: joins the editor's state with painting and input. */

import { effect, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { classColour } from "../core/colours";
import { applyTable, table, WHOLE, type Levels } from "../core/levels";
import { fit, keepInSight, type Size, type View } from "../core/view";
import * as editor from "../state/editor";
import * as list from "../state/list";
import { complain } from "../state/live";
import { marksOf } from "../state/marks";
import { picture, shownMap, type ShownMap } from "../state/pixels";
import { opacity, seenPen, showMap, showSuggestions, theme } from "../state/prefs";
import { classes } from "../state/project";
import { paint } from "./paint";
import { textUnit } from "../unit";
import { attach } from "./pointer";

/** The size of the canvas in CSS pixels, for the keys that zoom. */
export const stageSize = { width: 300, height: 300 };

export function smallestZoom(image: Size): number {
  return Math.min(1, fit(image, stageSize).scale / 2);
}

/** No view of its own means: the whole image, also after the window changes. */
export function viewNow(): View {
  return editor.view.value ?? fit(editor.detail.value ?? stageSize, stageSize);
}

export function setView(next: View): void {
  const image = editor.detail.value;
  if (image) editor.view.value = keepInSight(next, image, stageSize);
}

export function Stage({ maps }: { maps: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = useSignal<{ key: string; bitmap: ImageBitmap } | null>(null);
  const map = useSignal<ShownMap | null>(null);
  const size = useSignal(stageSize);
  const now = editor.shownFrame.value;
  const hasMap = editor.hasMap.value;
  const key = now ? `${now.image}/${now.frame}` : "";
  const pictureKey = currentKey();
  const readable = now !== null && !list.byId(now.image)?.value.failed;

  useEffect(() => {
    if (!now || !readable) return;
    let here = true;
    picture(now.image, editor.playing.value ?? now.frame)
      .then((bitmap) => {
        if (here) shown.value = { key: pictureKey, bitmap };
      })
      .catch(complain);
    return () => {
      here = false;
    };
  }, [pictureKey, readable]);

  useEffect(() => {
    if (!now || !hasMap) return;
    let here = true;
    shownMap(now.image, now.frame)
      .then((it) => {
        if (!here) return;
        map.value = it; // until then the old one stays
        editor.mapModel.value = it?.map.model ?? null;
      })
      .catch(complain);
    return () => {
      here = false;
    };
  }, [key, maps, hasMap]);

  useEffect(() => {
    map.value = null; // a map of another frame is no old map
    editor.mapModel.value = null;
  }, [key]);

  useEffect(() => {
    const element = canvas.current!;
    const watch = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      const before = size.value;
      stageSize.width = width;
      stageSize.height = height;
      size.value = { width, height };
      const view = editor.view.value;
      if (view) setView({ ...view, x: view.x + (width - before.width) / 2, y: view.y + (height - before.height) / 2 });
    });
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    const element = canvas.current!;
    const context = element.getContext("2d", { alpha: false })!;
    const levelled = new Levelled();
    let frame = 0;
    const stop = effect(() => {
      const scene = sceneOf(shown.value?.key === currentKey() ? shown.value.bitmap : null, map.value, levelled, size.value);
      const { width, height } = size.value;
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        const ratio = devicePixelRatio || 1;
        const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
        if (element.width !== w || element.height !== h) {
          element.width = w;
          element.height = h;
        }
        if (scene) paint(context, scene, ratio);
        else context.clearRect(0, 0, w, h);
      });
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, []);

  useEffect(
    () =>
      attach(canvas.current!, {
        view: viewNow,
        setView,
        smallest: () => smallestZoom(editor.detail.value ?? stageSize),
        levels: () => editor.levels.value,
        setLevels: (next) => (editor.levels.value = next),
        grabs: (at) => {
          if (editor.tool.value !== "select") return false;
          editor.selected.value = editor.lesionAt(at)?.lesion ?? null;
          return true;
        },
        fingersPan: () => seenPen.value,
        press: editor.begin,
        move: (at, pointer, pressure) => editor.extend(at, pointer, pressure, viewNow().scale),
        lift: (at) => editor.lift(at, viewNow().scale),
        drop: editor.drop,
        hover: (at) => (editor.hover.value = at),
        pen: () => (seenPen.value = true),
      }),
    [],
  );

  return (
    <canvas
      ref={canvas}
      id="stage"
      class={`stage tool-${editor.tool.value}`}
      tabIndex={0}
      role="application"
      aria-roledescription="image to mark"
      aria-label={label()}
    />
  );
}

/** The picture on the screen: the frame shown, or the one that plays. */
function currentKey(): string {
  const now = editor.shownFrame.value;
  return now ? `${now.image}/${editor.playing.value ?? now.frame}` : "";
}

function label(): string {
  const d = editor.detail.value;
  if (!d) return "image";
  const n = editor.marks.value?.lesions.length ?? 0;
  return `${d.name}, ${n} ${n === 1 ? "mark" : "marks"}. Press K to draw with the arrow keys.`;
}

/** The picture with window and level applied; made again only when either changes. */
class Levelled {
  #canvas: OffscreenCanvas | null = null;
  #of: ImageBitmap | null = null;
  #at: Levels = WHOLE;

  get(bitmap: ImageBitmap, levels: Levels): CanvasImageSource {
    if (levels.level === WHOLE.level && levels.window === WHOLE.window) return bitmap;
    if (this.#canvas && this.#of === bitmap && this.#at === levels) return this.#canvas;
    this.#canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const c = this.#canvas.getContext("2d")!;
    c.drawImage(bitmap, 0, 0);
    const pixels = c.getImageData(0, 0, bitmap.width, bitmap.height);
    applyTable(pixels.data, table(levels));
    c.putImageData(pixels, 0, 0);
    this.#of = bitmap;
    this.#at = levels;
    return this.#canvas;
  }
}

function sceneOf(bitmap: ImageBitmap | null, map: ShownMap | null, levelled: Levelled, size: Size) {
  const d = editor.detail.value;
  if (!d) return null;
  const tool = editor.tool.value;
  const round = tool === "brush" || tool === "eraser" || tool === "scribble";
  const radius = round ? editor.radius.value : null;
  const [hover, pen] = [editor.hover.value, editor.pen.value];
  const plays = editor.playing.value;
  const marks = plays === null ? editor.marks.value : marksOf(d.id, plays).value;
  const colour = (cls: string | null) => classColour(classes.value, cls);
  void theme.value; // the accent depends on it
  return {
    view: editor.view.value ?? fit(d, size),
    size: d,
    picture: bitmap && levelled.get(bitmap, editor.levels.value),
    map: map && showMap.value && plays === null ? { image: map.image, opacity: opacity.value } : null,
    lesions: marks?.lesions ?? [],
    selected: editor.selected.value,
    suggestions: showSuggestions.value && plays === null ? editor.open.value : [],
    proposal: editor.proposal.value?.outline ?? null,
    live: editor.shape.value,
    ring: hover && tool !== "select" && !pen ? { at: hover, radius } : null,
    pen: pen && { at: pen, radius },
    colour,
    current: colour(editor.cls.value),
    accent: "#f2b84b",
    unit: textUnit(),
  };
}
