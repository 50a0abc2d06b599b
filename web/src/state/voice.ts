/**
 * Labels by voice. Hold a key, say a word, let go: the word is shown. A tap of the same key accepts it; another word
 * replaces it; it is dropped when nothing happens. Nothing counts that was not shown and accepted.
 */

import { signal } from "@preact/signals";
import * as api from "../api";
import { LONGEST, SHOWN, TAP } from "../core/sound";
import type { Word } from "../types";
import { say } from "./live";
import { project } from "./project";
import * as recorder from "./recorder";

/** What a word would do now; `run` is missing where there is nothing to accept. */
export interface Deed {
  text: string;
  run?: () => void;
}

interface Shown extends Deed {
  word: string;
}

export const phase = signal<"idle" | "opening" | "listening" | "thinking">("idle");
export const shown = signal<Shown | null>(null);
export const told = signal(""); // what went wrong, or what to do

let means: ((word: Word) => Deed) | null = null;
let place: () => string = () => "";
let began = 0;
let opened = 0; // when the recording began; 0 before
let turn = 0; // counts presses: an answer to an earlier one is too late
let limit: ReturnType<typeof setTimeout> | undefined;
let expiry: ReturnType<typeof setTimeout> | undefined;

/** Listens for a view until the returned function is called; `where` names what a word is about. */
export function listen(meaning: (word: Word) => Deed, where: () => string): () => void {
  means = meaning;
  place = where;
  return () => {
    means = null;
    cancel();
    drop();
    told.value = "";
    recorder.close();
  };
}

function tell(text: string): void {
  told.value = text;
  say(text);
  clearTimeout(expiry);
  expiry = setTimeout(() => (told.value = ""), SHOWN);
}

export async function press(): Promise<void> {
  if (!means) return;
  if (!project.value?.voice) return tell("Labels by voice need PocketSphinx: pip install 'ultraad[voice]', then start again");
  if (phase.value === "thinking") return tell("Wait: the last word is still being recognised");
  if (phase.value !== "idle") return;
  clearTimeout(expiry);
  told.value = "";
  phase.value = "opening";
  began = performance.now();
  opened = 0;
  const mine = ++turn;
  try {
    await recorder.begin();
  } catch (error) {
    if (mine !== turn) return;
    phase.value = "idle";
    return tell((error as Error).message);
  }
  if (mine !== turn) return;
  opened = performance.now();
  phase.value = "listening";
  limit = setTimeout(() => {
    cancel();
    tell(`Held for more than ${LONGEST / 1000} seconds: hold the key for one word only`);
  }, LONGEST);
}

export async function release(): Promise<void> {
  if (phase.value !== "opening" && phase.value !== "listening") return;
  clearTimeout(limit);
  const held = performance.now() - began;
  if (held < TAP || !opened) {
    const ready = opened > 0;
    cancel();
    if (shown.value) accept();
    else tell(ready || held < TAP ? "Hold the key while you speak" : "The microphone was not open yet: hold the key again");
    return;
  }
  shown.value = null; // another word comes
  phase.value = "thinking";
  const mine = turn;
  const about = place();
  try {
    const clip = new Blob([await recorder.end()], { type: "application/octet-stream" });
    const heard = await api.hear(clip);
    if (mine !== turn) return;
    phase.value = "idle";
    if (!heard.word) tell("Not understood: say it again, or use the keys");
    else if (about !== place()) tell(`Heard "${heard.text}", but the image is another one now: say it again`);
    else show(heard.word);
  } catch (error) {
    if (mine !== turn) return;
    phase.value = "idle";
    const text = (error as Error).message;
    tell(text.charAt(0).toUpperCase() + text.slice(1));
  }
}

function show(word: Word): void {
  const deed = means?.(word);
  if (!deed) return;
  if (!deed.run) return tell(`${word.name}: ${deed.text}`);
  shown.value = { ...deed, word: word.name };
  say(`${word.name}? ${deed.text}. Tap the key or press Enter to accept`);
  clearTimeout(expiry);
  expiry = setTimeout(() => {
    drop();
    tell(`${word.name} was not accepted: nothing changed`);
  }, SHOWN);
}

/** Does what is shown. */
export function accept(): void {
  const run = shown.value?.run;
  drop();
  run?.();
}

/** Forgets the word that is shown. */
export function drop(): void {
  clearTimeout(expiry);
  shown.value = null;
}

/** Forgets what is being recorded or recognised. */
export function cancel(): void {
  turn++;
  clearTimeout(limit);
  if (phase.value === "opening" || phase.value === "listening") void recorder.stop().catch(() => undefined);
  phase.value = "idle";
}
