/** The pointer on a picture. */

import type { Box } from "./api";
import { drawn } from "./boxes";
import { svg } from "./dom";

interface Meanings {
  draw: (box: Box) => void;
  click: (index: number) => void;
}

/** A click on a box turns it over; a stroke draws a new one. */
export function stroke(event: PointerEvent, canvas: SVGGraphicsElement, size: [number, number], to: Meanings): void {
  if (event.button !== 0) return;
  event.preventDefault();
  const point = (e: PointerEvent): [number, number] => {
    const at = new DOMPoint(e.clientX, e.clientY).matrixTransform(canvas.getScreenCTM()!.inverse());
    return [at.x, at.y];
  };
  const hit = (event.target as Element).closest("[data-box]");
  const start = point(event);
  const shadow = svg("rect", { class: "shadow", x: 0, y: 0, width: 0, height: 0 });
  canvas.append(shadow);
  canvas.setPointerCapture(event.pointerId);
  const onMove = (e: Event) => {
    const [x, y] = point(e as PointerEvent);
    const values = [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
    ["x", "y", "width", "height"].forEach((name, n) => shadow.setAttribute(name, String(values[n])));
  };
  const end = (e: Event) => {
    canvas.removeEventListener("pointermove", onMove);
    canvas.removeEventListener("pointerup", end);
    canvas.removeEventListener("pointercancel", end);
    shadow.remove();
    if (e.type === "pointercancel") return;
    const box = drawn(start, point(e as PointerEvent), size);
    if (box) to.draw(box);
    else if (hit) to.click(Number(hit.getAttribute("data-box")));
  };
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
}
