/** Settings of labels by voice: what can be said, and how classes are said that no dictionary knows. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { attempt } from "../state/live";
import { project } from "../state/project";
import type { VoiceInfo } from "../types";
import { Key, Note, Section } from "./parts";

export function VoiceSettings() {
  const info = useSignal<VoiceInfo | null>(null);
  const names = project.value!.classes.map((c) => c.name);
  useEffect(() => void attempt(async () => (info.value = await api.voice())), [names.join("\n")]);
  const told = info.value;
  if (!told) return null;
  if (!told.installed) {
    return (
      <Section title="Voice">
        <p class="muted">{told.message}, then start the server again.</p>
      </Section>
    );
  }
  const silent = new Map(told.silent.map((s) => [s.name, s.why]));
  return (
    <Section title="Voice">
      <p class="muted">
        In Mark, hold <Key of="speak" /> and say a class, or {told.words.filter((w) => w.kind === "command").map((w) => w.name).join(", ")}.
        A tap of the same key accepts what was heard. Recognised on this machine; sound is never kept.
      </p>
      <fieldset>
        <legend>How each class is said, in English words</legend>
        {names.map((name) => (
          <label class="field" key={name}>
            <span>{name}</span>
            <input
              type="text"
              maxLength={100}
              placeholder={name}
              value={told.said[name] ?? ""}
              onChange={(e) => {
                const said = e.currentTarget.value.trim() || null;
                void attempt(async () => (info.value = await api.setSaid(name, said)));
              }}
            />
            {silent.has(name) && <Note kind="warning">Cannot be said: {silent.get(name)}</Note>}
          </label>
        ))}
      </fieldset>
    </Section>
  );
}
