/** The view in the address: #images, #mark/ID/FRAME, #next, #adapt, #look/TAB, #take. */

import { signal } from "@preact/signals";

export const VIEWS = ["images", "mark", "next", "adapt", "look", "take"] as const;
export type ViewName = (typeof VIEWS)[number];

export interface Route {
  view: ViewName;
  rest: string[];
}

function read(): Route {
  const [view, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  return VIEWS.includes(view as ViewName) ? { view: view as ViewName, rest } : { view: "images", rest: [] };
}

export const route = signal<Route>(read());

addEventListener("hashchange", () => {
  route.value = read();
});

export function address(view: ViewName, ...rest: (string | number)[]): string {
  return `#${[view, ...rest].map((part) => encodeURIComponent(part)).join("/")}`;
}

export function go(view: ViewName, ...rest: (string | number)[]): void {
  location.hash = address(view, ...rest);
}

/** Changes the address without a new step in the browser's history. */
export function replace(view: ViewName, ...rest: (string | number)[]): void {
  history.replaceState(null, "", address(view, ...rest));
  route.value = read();
}
