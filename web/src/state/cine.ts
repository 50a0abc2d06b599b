/** Frames of a cine: one on, one back, played. */

import * as editor from "./editor";
import { complain, say } from "./live";
import { picture } from "./pixels";
import { replace } from "./route";

export function toFrame(by: number): void {
  const now = editor.shownFrame.value;
  const d = editor.detail.value;
  if (!now || !d) return;
  const to = Math.min(d.frames - 1, Math.max(0, now.frame + by));
  if (to !== now.frame) replace("mark", now.image, to);
  else say(by > 0 ? "This is the last frame" : "This is the first frame");
}

const RATE = 15; // frames per second, where the file does not say

/** Starts or stops the cine; stopping stays on the frame reached. */
export function play(): void {
  const now = editor.shownFrame.value;
  const d = editor.detail.value;
  if (!now || !d || d.frames < 2) return;
  if (editor.playing.value !== null) {
    const at = editor.playing.value;
    editor.playing.value = null;
    replace("mark", now.image, at);
    return;
  }
  editor.drop();
  editor.playing.value = now.frame;
  void run(now.image, d.frames);
}

async function run(image: string, frames: number): Promise<void> {
  const goesOn = () => editor.playing.value !== null && editor.shownFrame.value?.image === image;
  try {
    while (goesOn()) {
      const due = performance.now() + 1000 / RATE;
      const next = (editor.playing.value! + 1) % frames;
      await picture(image, next);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      if (goesOn()) editor.playing.value = next;
    }
  } catch (error) {
    editor.playing.value = null;
    complain(error);
  }
}
