/** The way from image to image in Mark: next, suggested, skipped, reviewed. */

import * as api from "../api";
import * as editor from "./editor";
import * as list from "./list";
import { say } from "./live";
import { add } from "./marks";
import { showSuggestions } from "./prefs";
import { queue, refreshQueue } from "./project";
import { go } from "./route";

export const reviewing = (): boolean => list.scope.value === "review";

/** Goes some places on in the order of the list. */
export async function walk(by: number): Promise<void> {
  const now = editor.shownFrame.value;
  const known = now ? list.placeOf(now.image) : -1;
  const to = (known >= 0 ? known : list.lastPlace.value) + by;
  const item = await list.ensure(to);
  if (!item) {
    say(by > 0 ? "This is the last image" : "This is the first image");
    return;
  }
  list.remember(to);
  go("mark", item.id, item.best);
}

/** Goes to the first image of the queue that is not shown now. */
export async function suggested(): Promise<void> {
  await refreshQueue();
  const next = queue.value?.items.find((q) => q.image !== editor.shownFrame.value?.image);
  if (!next) {
    say(queue.value?.message || "Nothing is suggested now");
    return;
  }
  await list.fetchItem(next.image);
  go("mark", next.image, next.frame);
  say(`suggested: ${next.reason}`);
}

export async function skip(): Promise<void> {
  const now = editor.shownFrame.value;
  if (!now) return;
  add(now.image, now.frame, { kind: "skip" });
  if (queue.value?.items.length) await suggested();
  else await walk(1);
}

/** Review: what is offered is accepted, the image is seen, the next one is shown. */
export async function agree(): Promise<void> {
  const now = editor.shownFrame.value;
  if (!now) return;
  if (showSuggestions.value) for (const one of editor.open.value) editor.accept(one);
  add(now.image, now.frame, { kind: "seen" });
  await walk(1);
}

/** Removes an image from the project and shows the next one. */
export async function takeOut(image: string): Promise<void> {
  const place = list.placeOf(image);
  await api.removeImage(image);
  await list.reload(Math.max(0, place));
  const item = (await list.ensure(Math.max(0, place))) ?? (await list.ensure(0));
  if (item) go("mark", item.id, item.best);
  else go("images");
}

export async function review(): Promise<void> {
  await list.adopt("review", { state: "review", sort: "disagreement", order: "desc" });
  const first = await list.ensure(0);
  if (first) go("mark", first.id, first.best);
  else say("Nothing to review: marks and model agree on all images seen");
}
