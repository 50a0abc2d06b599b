/** Pointer events of the canvas to gestures: draw, pan, pinch, window and level. Draws nothing itself. */

import { clampLevels, WHOLE, type Levels } from "../core/levels";
import { pinch, zoom, type Point, type View } from "../core/view";

export interface Hand {
  view(): View;
  setView(view: View): void;
  smallest(): number; // least zoom
  levels(): Levels;
  setLevels(levels: Levels): void;
  grabs(at: Point): boolean; // true if a press here should move the image, not draw
  fingersPan(): boolean; // a pen is in use: fingers do not draw
  press(at: Point, pointer: string, pressure: number): void;
  move(at: Point, pointer: string, pressure: number): void;
  lift(at: Point): void;
  drop(): void; // the gesture became another one: forget the shape
  hover(at: Point | null): void;
  pen(): void; // a pen was seen
}

/** True while the key for "play" is held: dragging moves the image. */
export const held = { down: false, used: false };

export function attach(canvas: HTMLCanvasElement, hand: Hand): () => void {
  let drag: "draw" | "pan" | "levels" | null = null;
  let from: Point = [0, 0];
  const fingers = new Map<number, Point>();

  const onScreen = (e: MouseEvent): Point => {
    const box = canvas.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  const onImage = (e: MouseEvent): Point => {
    const [x, y] = onScreen(e);
    const { scale, x: left, y: top } = hand.view();
    return [(x - left) / scale, (y - top) / scale];
  };

  function down(e: PointerEvent): void {
    const at = onScreen(e);
    canvas.setPointerCapture(e.pointerId);
    if (e.pointerType === "pen") hand.pen();
    if (e.pointerType === "touch") {
      fingers.set(e.pointerId, at);
      if (fingers.size === 2) {
        if (drag === "draw") hand.drop();
        drag = null;
        return;
      }
      if (fingers.size > 2) return;
    }
    from = at;
    const image = onImage(e);
    if (e.button === 2) drag = "levels";
    else if (e.button === 1 || held.down || (e.pointerType === "touch" && hand.fingersPan())) drag = "pan";
    else if (hand.grabs(image)) drag = "pan";
    else if (e.button === 0) {
      drag = "draw";
      hand.press(image, e.pointerType, e.pressure);
    }
    if (held.down) held.used = true;
  }

  function move(e: PointerEvent): void {
    const at = onScreen(e);
    if (fingers.has(e.pointerId) && fingers.size === 2) {
      const before = [...fingers.values()] as [Point, Point];
      fingers.set(e.pointerId, at);
      hand.setView(pinch(hand.view(), before, [...fingers.values()] as [Point, Point], hand.smallest()));
      return;
    }
    if (fingers.has(e.pointerId)) fingers.set(e.pointerId, at);
    if (e.pointerType !== "touch") hand.hover(onImage(e));
    const [dx, dy] = [at[0] - from[0], at[1] - from[1]];
    if (drag === "pan") {
      const view = hand.view();
      hand.setView({ ...view, x: view.x + dx, y: view.y + dy });
      from = at;
    } else if (drag === "levels") {
      const { level, window } = hand.levels();
      hand.setLevels(clampLevels({ level: level + dy / 2, window: window + dx }));
      from = at;
    } else if (drag === "draw") {
      const parts = e.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [e]) hand.move(onImage(part), e.pointerType, part.pressure);
    }
  }

  function up(e: PointerEvent): void {
    const pinched = fingers.size >= 2;
    fingers.delete(e.pointerId);
    if (pinched) return; // the finger that stays does not begin to draw
    if (drag === "draw") hand.lift(onImage(e));
    drag = null;
  }

  function lost(e: PointerEvent): void {
    fingers.delete(e.pointerId);
    if (drag === "draw") hand.drop();
    drag = null;
  }

  function wheel(e: WheelEvent): void {
    e.preventDefault();
    const at = onScreen(e);
    const lines = e.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const factor = Math.exp((-e.deltaY * lines) / (e.ctrlKey ? 100 : 400));
    hand.setView(zoom(hand.view(), at, factor, hand.smallest()));
  }

  const menu = (e: Event) => e.preventDefault();
  const leave = () => hand.hover(null);
  const twice = (e: MouseEvent) => {
    if (e.button === 2) hand.setLevels(WHOLE);
  };
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", lost);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("contextmenu", menu);
  canvas.addEventListener("dblclick", twice);
  return () => {
    canvas.removeEventListener("pointerdown", down);
    canvas.removeEventListener("pointermove", move);
    canvas.removeEventListener("pointerup", up);
    canvas.removeEventListener("pointercancel", lost);
    canvas.removeEventListener("pointerleave", leave);
    canvas.removeEventListener("wheel", wheel);
    canvas.removeEventListener("contextmenu", menu);
    canvas.removeEventListener("dblclick", twice);
  };
}
