/** Labels by voice in Mark: what a word does, the button to hold, and the word that was heard. */

import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as editor from "../state/editor";
import { label } from "../state/marks";
import { normal, project } from "../state/project";
import { skip, walk } from "../state/walk";
import * as voice from "../state/voice";
import type { Word } from "../types";
import { Icon } from "../ui/icons";
import { Key, keyOf } from "../ui/parts";
import { accept, back } from "./mark_actions";

function meaning({ name, kind }: Word): voice.Deed {
  const now = editor.shownFrame.value;
  const marks = editor.marks.value;
  if (!now || !marks) return { text: "the image is still being opened" };
  if (kind === "command") {
    if (name === "next") return { text: "go to the next image", run: () => void walk(1) };
    if (name === "skip") return { text: "skip this image", run: () => void skip() };
    if (name === "accept") return { text: "accept the suggestion", run: accept };
    const what = marks.undo_text;
    return what ? { text: `take back: ${what}`, run: () => back("undo") } : { text: "nothing to undo on this image" };
  }
  const lesion = name === normal.value ? undefined : marks.lesions.find((l) => l.lesion === editor.selected.value);
  if (lesion) {
    if (lesion.class === name) return { text: `lesion ${lesion.number} is that already` };
    const run = () => {
      editor.selected.value = lesion.lesion;
      editor.takeClass(name);
    };
    return { text: `class of lesion ${lesion.number}`, run };
  }
  if (marks.label_from === "label" && marks.label === name) return { text: "the image is that already" };
  return { text: "label of the whole image", run: () => label(now.image, now.frame, name) };
}

const place = () => {
  const now = editor.shownFrame.value;
  return now ? `${now.image}/${now.frame}` : "";
};

export function useVoice(): void {
  useEffect(() => {
    const close = voice.listen(meaning, place);
    let before = place();
    const stop = effect(() => {
      const at = place();
      if (at !== before) voice.drop(); // it was about the image before
      before = at;
    });
    return () => {
      stop();
      close();
    };
  }, []);
}

/** Held with the mouse, a finger, Space or Enter. */
export function SpeakButton() {
  if (!project.value?.voice) return null;
  const busy = voice.phase.value === "listening";
  const holds = (e: KeyboardEvent) => e.key === " " || e.key === "Enter";
  const key = keyOf("speak");
  return (
    <button
      type="button"
      class={busy ? "tool speak on" : "tool speak"}
      aria-label="Hold and say a word"
      title={key ? `Hold and say a word (${key})` : "Hold and say a word"}
      {...(key ? { "aria-keyshortcuts": key } : {})}
      onPointerDown={(e) => {
        e.currentTarget.setPointerCapture(e.pointerId);
        void voice.press();
      }}
      onPointerUp={() => void voice.release()}
      onPointerCancel={voice.cancel}
      onContextMenu={(e) => e.preventDefault()}
      onKeyDown={(e) => {
        if (!holds(e)) return;
        e.preventDefault();
        if (!e.repeat) void voice.press();
      }}
      onKeyUp={(e) => {
        if (holds(e)) void voice.release();
      }}
    >
      <Icon name="voice" />
    </button>
  );
}

const PHASES = { opening: "Opening the microphone", listening: "Listening: let go after the word", thinking: "One moment" };

/** What was heard. The live region says it, too. */
export function HeardCard() {
  const word = voice.shown.value;
  const phase = voice.phase.value;
  if (word && phase !== "thinking") {
    return (
      <div class="heard" role="group" aria-label="Heard">
        <p>
          <strong>{word.word}?</strong> {word.text}
        </p>
        <p class="buttons">
          <button type="button" class="primary" onClick={voice.accept}>
            Accept <Key of="speak" /> <Key of="accept" />
          </button>
          <button type="button" onClick={voice.drop}>
            Drop <Key of="cancel" />
          </button>
        </p>
        <span class="left" />
      </div>
    );
  }
  const text = phase === "idle" ? voice.told.value : PHASES[phase];
  return text ? (
    <div class={phase === "listening" ? "heard on" : "heard"} aria-hidden="true">
      <p>{text}</p>
    </div>
  ) : null;
}
