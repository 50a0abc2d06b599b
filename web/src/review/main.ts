/** The review of `ultraad deidentify`: every box and every picture, confirmed or rejected. */

import "../styles/base.css";
import "./review.css";
import * as api from "./api";
import { areaOf, central, moved, toggled } from "./boxes";
import { h, put, svg } from "./dom";
import { stroke } from "./stroke";

const app = document.getElementById("app")!;
const WORDS: Record<api.State, string> = { open: "open", confirmed: "confirmed", dropped: "left out" };
const SIGNS: Record<api.State, string> = { open: "", confirmed: "✓", dropped: "✕" };

let review: api.Review;
let at = 0; // the file that is shown
let chosen = 0; // its box
let asWritten = false;
let actualSize = false;
let saving = 0;
let items: HTMLElement[] = [];

const count = h("p", { class: "count", role: "status" });
const write = h("button", { type: "button", class: "main", click: () => openDialog() }, "Write the images…");
const list = h("ol", { class: "files", "aria-label": "Files" });
const stage = h("main", { class: "viewer", tabindex: "0", "aria-label": "Picture" });
const side = h("aside", { class: "decide", "aria-label": "Boxes and decision" });
const told = h("p", { class: "told", role: "status" });
const dialog = h("dialog", { "aria-labelledby": "sure" });

const file = () => review.files[at]!;
const openOnes = () => review.files.filter((one) => one.state === "open").length;
const sizeOf = (one: api.File): [number, number] => one.sizes[0] ?? [1, 1];

// ---- decisions

/** Save, then show what the server has: what is on the screen is what is kept. */
async function save(boxes: api.Box[], state: api.State): Promise<boolean> {
  const number = at;
  saving += 1;
  document.body.dataset.saved = "false";
  say("saving…");
  try {
    review.files[number] = await api.decide(number, boxes, state);
    say("saved");
    return true;
  } catch (error) {
    say(`Not saved: ${(error as Error).message}`, true);
    return false;
  } finally {
    saving -= 1;
    document.body.dataset.saved = String(saving === 0);
    mark(number);
    if (number === at) show();
  }
}

/** Changed boxes are to be confirmed again. */
const change = (boxes: api.Box[]) => save(boxes, "open");

async function finish(state: api.State): Promise<void> {
  const from = at;
  if (!(await save(file().boxes, state)) || at !== from) return;
  const n = review.files.length;
  for (let step = 1; step < n; step += 1) {
    if (review.files[(from + step) % n]!.state === "open") return go((from + step) % n);
  }
  if (openOnes() === 0) write.focus();
}

function toggle(index: number): void {
  chosen = index;
  void change(file().boxes.map((box, n) => (n === index ? toggled(box) : box)));
}

function remove(index: number): void {
  if (file().boxes[index]?.number !== null) return;
  chosen = Math.max(0, index - 1);
  void change(file().boxes.filter((_, n) => n !== index));
}

function add(box: api.Box | null): void {
  if (!box) return;
  chosen = file().boxes.length;
  void change([...file().boxes, box]);
}

function move(dx: number, dy: number, resize: boolean): void {
  const box = file().boxes[chosen];
  if (!box || box.number !== null) return;
  void change(file().boxes.map((one, n) => (n === chosen ? moved(box, dx, dy, sizeOf(file()), resize) : one)));
}

// ---- what is shown

function say(text: string, bad = false): void {
  told.textContent = text;
  told.classList.toggle("bad", bad);
}

function go(number: number): void {
  at = Math.min(Math.max(number, 0), review.files.length - 1);
  chosen = 0;
  show();
  mark(at);
  items[at]?.scrollIntoView({ block: "nearest" });
}

function mark(number: number): void {
  const one = review.files[number]!;
  const item = items[number]!;
  item.className = one.state;
  item.replaceChildren(
    h(
      "button",
      { type: "button", click: () => go(number), "aria-label": `${one.file}, ${WORDS[one.state]}` },
      h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[one.state]),
      h("span", {}, one.file),
      h("small", {}, `${one.boxes.length} box${one.boxes.length === 1 ? "" : "es"}`),
    ),
  );
  items.forEach((other, n) => other.firstElementChild?.toggleAttribute("aria-current", n === at));
  const left = openOnes();
  const decided = review.files.length - left;
  count.textContent = `${decided} of ${review.files.length} decided${left ? `, ${left} open` : ""}`;
  write.toggleAttribute("disabled", left > 0);
  write.title = left ? "Confirm or leave out every file first" : "";
}

function show(): void {
  const one = file();
  const pictures = one.sizes.map((size, which) => figure(one, size, which));
  stage.replaceChildren(...pictures);
  stage.classList.toggle("actual", actualSize);
  stage.classList.toggle("written", asWritten);
  const focused = side.contains(document.activeElement) ? document.activeElement?.id : undefined;
  put(
    side,
    h("h1", {}, one.file),
    h("p", { class: one.whole ? "warn" : "muted" }, `${one.frames} frame${one.frames === 1 ? "" : "s"}; ${one.where}.`),
    one.whole && h("p", { class: "warn" }, "It will not be declared free of text."),
    h("h2", {}, one.boxes.length ? "Boxes" : "No box. The search misses text: look."),
    h("ol", { class: "boxes" }, ...one.boxes.map(row)),
    h(
      "div",
      { class: "actions" },
      button("Confirm", "Enter", () => void finish("confirmed"), one.state === "confirmed", "confirm"),
      button("Leave out", "X", () => void finish("dropped"), one.state === "dropped", "drop"),
      one.state !== "open" && button("Open again", "O", () => void save(one.boxes, "open"), false, "reopen"),
    ),
    h("p", { class: `state ${one.state}` }, `This file is ${WORDS[one.state]}.`),
    told,
  );
  if (focused) (document.getElementById(focused) ?? stage).focus(); // the button was made anew
}

function button(words: string, key: string, click: () => void, pressed: boolean, id: string): HTMLElement {
  return h(
    "button",
    { type: "button", id, click, "aria-pressed": String(pressed), "aria-keyshortcuts": key },
    words,
    h("kbd", { "aria-hidden": "true" }, key),
  );
}

function row(box: api.Box, index: number): HTMLElement {
  const name = box.number === null ? "drawn" : `box ${box.number}`;
  const read = box.text ? `“${box.text}”` : box.number === null ? "by you" : "not read";
  const blank = box.action === "blank";
  return h(
    "li",
    { class: `${box.action}${index === chosen ? " chosen" : ""}` },
    h("span", { class: "name" }, name),
    h("span", { class: "read" }, read, box.score === null ? "" : h("small", {}, ` ${box.score.toFixed(2)}`)),
    h(
      "button",
      {
        type: "button",
        class: "toggle",
        id: `toggle-${index}`,
        "aria-pressed": String(blank),
        "aria-label": `${name}: ${blank ? "is blanked; leave it" : "stays; blank it"}`,
        click: () => toggle(index),
      },
      blank ? "blank" : "leave",
    ),
    box.number === null &&
      h("button", { type: "button", "aria-label": "remove this box", click: () => remove(index) }, "remove"),
  );
}

function figure(one: api.File, size: [number, number], which: number): HTMLElement {
  const [width, height] = size;
  const image = svg("image", { href: api.picture(at, which), width, height });
  const order = one.boxes.map((box, index) => ({ box, index, area: areaOf(box) })).sort((a, b) => b.area - a.area);
  const boxes = order.map(({ box, index }) => outline(box, index)); // small ones on top, so that each can be clicked
  const canvas = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" }, image, ...boxes);
  canvas.setAttribute("aria-label", `${one.file}, ${which === 0 ? "first frame" : "brightest of all frames"}`);
  canvas.addEventListener("pointerdown", (event) =>
    stroke(event as PointerEvent, canvas as SVGGraphicsElement, size, { draw: add, click: toggle }),
  );
  const caption = one.sizes.length > 1 && (which === 0 ? "First frame" : `Brightest of all ${one.frames} frames`);
  return h("figure", {}, caption && h("figcaption", {}, caption), canvas as unknown as HTMLElement);
}

function outline(box: api.Box, index: number): SVGElement {
  const [x0, y0, x1, y1] = box.corners;
  const rect = svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
  const label = svg("text", { x: x0, y: Math.max(10, y0 - 3) });
  label.textContent = box.number === null ? "drawn" : String(box.number);
  const group = svg("g", { class: `box ${box.action}${index === chosen ? " chosen" : ""}`, "data-box": index }, rect, label);
  return group;
}

// ---- keys

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

function onKey(event: KeyboardEvent): void {
  if (dialog.open || event.ctrlKey || event.metaKey) return;
  const native = event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
  if (native) return;
  const arrow = ARROWS[event.key];
  const step = (index: number) => {
    chosen = Math.min(Math.max(index, 0), Math.max(0, file().boxes.length - 1));
    show();
  };
  const doing: Record<string, () => void> = {
    Enter: () => void finish("confirmed"),
    x: () => void finish("dropped"),
    o: () => void save(file().boxes, "open"),
    " ": () => file().boxes[chosen] && toggle(chosen),
    n: () => add(central(sizeOf(file()))),
    Delete: () => remove(chosen),
    Backspace: () => remove(chosen),
    p: () => {
      asWritten = !asWritten;
      show();
    },
    z: () => {
      actualSize = !actualSize;
      show();
    },
    ArrowLeft: () => go(at - 1),
    ArrowRight: () => go(at + 1),
    ArrowUp: () => step(chosen - 1),
    ArrowDown: () => step(chosen + 1),
  };
  const act = arrow && (event.shiftKey || event.altKey) ? () => move(...arrow, event.altKey) : doing[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

// ---- the end

function openDialog(): void {
  const confirmed = review.files.filter((one) => one.state === "confirmed").length;
  const left = review.files.length - confirmed;
  dialog.replaceChildren(
    h("h1", { id: "sure" }, `Write ${confirmed} file${confirmed === 1 ? "" : "s"}?`),
    h(
      "p",
      {},
      `${left} left out. You have looked at every picture; the search misses text. What you confirm, you answer for.`,
    ),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", class: "main", id: "yes", click: () => void confirmAll() }, "I have looked: write them"),
      h("button", { type: "button", click: () => dialog.close() }, "Go back"),
    ),
  );
  dialog.showModal();
}

async function confirmAll(): Promise<void> {
  try {
    await api.confirmAll();
  } catch (error) {
    dialog.close();
    say(`Not confirmed: ${(error as Error).message}`, true);
    return;
  }
  dialog.close();
  document.removeEventListener("keydown", onKey);
  door("Confirmed.", "The command in the terminal writes the images now. You can close this page.");
}

function door(...lines: string[]): void {
  app.replaceChildren(
    h("main", { class: "door" }, h("h1", {}, lines[0] ?? ""), ...lines.slice(1).map((line) => h("p", {}, line))),
  );
}

async function start(): Promise<void> {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  history.replaceState(null, "", location.pathname); // a used code is of no use, and not for the history
  try {
    if (code) await api.logIn(code);
    review = await api.review();
  } catch (error) {
    const signedOut = error instanceof api.Refused && error.status === 401;
    const again = "Press Ctrl-C there and run the same command again: it goes on where it was.";
    return signedOut
      ? door("Review", "This page needs the address that the command printed in the terminal. It works once.", again)
      : door("Review", (error as Error).message);
  }
  items = review.files.map(() => h("li"));
  list.replaceChildren(...items);
  const failed = Object.entries(review.failed);
  app.replaceChildren(
    h(
      "div",
      { class: "burned" },
      h(
        "header",
        {},
        h("strong", {}, "Review of burned-in text"),
        count,
        write,
        h("p", { class: "warn" }, "This page shows patient data."),
      ),
      h(
        "nav",
        { "aria-label": "Files" },
        list,
        failed.length > 0 &&
          h(
            "details",
            {},
            h("summary", {}, `${failed.length} not usable, and not written`),
            h("ul", {}, ...failed.map(([name, why]) => h("li", {}, h("strong", {}, name), ` ${why}`))),
          ),
      ),
      stage,
      side,
      h(
        "footer",
        {},
        ...[
          ["Enter", "confirm"],
          ["X", "leave out"],
          ["← →", "files"],
          ["↑ ↓", "boxes"],
          ["Space", "blank or leave"],
          ["drag or N", "new box"],
          ["⇧ arrows, Alt arrows", "move, resize it"],
          ["Del", "remove it"],
          ["P", "as written"],
          ["Z", "actual size"],
        ].map(([key, words]) => h("span", {}, h("kbd", {}, key!), ` ${words}`)),
      ),
      dialog,
    ),
  );
  document.body.dataset.saved = "true";
  document.addEventListener("keydown", onKey);
  review.files.forEach((_, number) => mark(number));
  const first = review.files.findIndex((one) => one.state === "open");
  go(first < 0 ? 0 : first);
  stage.focus();
}

app.addEventListener("click", (event) => {
  if (event.detail > 0 && !dialog.open) stage.focus(); // a mouse leaves the keys to the picture
});
void start();
