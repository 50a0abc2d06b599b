/** The fold under Adapt: method, backbone and every option, made from what the server says about them. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { complain } from "../state/live";
import { choice, project } from "../state/project";
import type { MethodInfo, MethodOption } from "../types";
import { Note, Pick } from "../ui/parts";

const methods = signal<readonly MethodInfo[] | null>(null);
const backbones = signal<readonly { name: string; about: string }[]>([]);
const wait = signal(false); // the server is still reading its methods

async function load(): Promise<void> {
  if (methods.value) return;
  try {
    [methods.value, backbones.value] = await Promise.all([api.methods(), api.backbones()]);
    wait.value = false;
  } catch (error) {
    if (!(error instanceof api.ApiError && error.kind === "not_ready")) return complain(error);
    wait.value = true;
    setTimeout(() => void load(), 1000);
  }
}

export function Options() {
  useEffect(() => void load(), []);
  const all = methods.value ?? [];
  const now = all.find((m) => m.name === (choice.value.method ?? "ultraad")) ?? all[0];
  return (
    <details class="options">
      <summary>Method, backbone and options</summary>
      {wait.value && <p class="muted">The methods are being read…</p>}
      {now && (
        <>
          <Pick
            label="Method"
            value={now.name}
            options={all.map((m) => [m.name, m.ready ? m.title : `${m.title} (not now: ${m.reason})`] as const)}
            onPick={(method) => (choice.value = { ...choice.value, method, options: {} })}
          />
          <p class="muted">
            {now.name} {now.idea}. It gives {now.gives.join(", ")}.
          </p>
          {!now.ready && <Note kind="warning">{now.reason}</Note>}
          <Pick
            label="Backbone"
            value={choice.value.backbone ?? backbones.value[0]?.name ?? ""}
            options={backbones.value.map((b) => [b.name, b.about ? `${b.name}: ${b.about}` : b.name] as const)}
            onPick={(backbone) => (choice.value = { ...choice.value, backbone })}
          />
          <label class="check">
            <input
              type="checkbox"
              checked={choice.value.use_held_out ?? false}
              onChange={(e) => (choice.value = { ...choice.value, use_held_out: e.currentTarget.checked })}
            />
            Use the kept-out images too ({project.value?.held_out ?? 0}): the last model; its numbers come from
            cross-validation
          </label>
          <Fields method={now} />
        </>
      )}
    </details>
  );
}

function Fields({ method }: { method: MethodInfo }) {
  const sections = [...new Set(method.options.map((o) => o.section))];
  return (
    <>
      {sections.map((section) => (
        <fieldset key={section}>
          <legend>{section || "general"}</legend>
          {method.options
            .filter((o) => o.section === section)
            .map((o) => (
              <Field key={`${method.name}.${o.key}`} option={o} />
            ))}
        </fieldset>
      ))}
      <button type="button" onClick={() => (choice.value = {})}>
        Usual settings
      </button>
    </>
  );
}

function set(option: MethodOption, value: unknown): void {
  const options = { ...choice.value.options };
  if (value === option.default || value === "") delete options[option.key];
  else options[option.key] = value;
  choice.value = { ...choice.value, options };
}

function Field({ option: o }: { option: MethodOption }) {
  const own = choice.value.options?.[o.key];
  const shown = own ?? o.default;
  const number = o.type === "number" || o.type === "integer";
  const about = [o.description, o.values].filter(Boolean).join("; ");
  if (o.type === "boolean") {
    return (
      <label class="check" title={about}>
        <input type="checkbox" checked={shown === true} onChange={(e) => set(o, e.currentTarget.checked)} />
        {o.key} <small>{o.description}</small>
      </label>
    );
  }
  return (
    <label class={`field${own === undefined ? "" : " own"}`} title={about}>
      <span>{o.key}</span>
      {o.choices ? (
        <select value={String(shown)} onChange={(e) => set(o, e.currentTarget.value)}>
          {o.choices.map((c) => (
            <option key={c} selected={c === String(shown)}>
              {c}
            </option>
          ))}
        </select>
      ) : (
        <input
          type="text"
          inputMode={number ? "decimal" : "text"}
          value={shown === null || shown === undefined ? "" : typeof shown === "object" ? JSON.stringify(shown) : String(shown)}
          onChange={(e) => {
            const text = e.currentTarget.value;
            set(o, number && text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text); // the server says what is wrong
          }}
        />
      )}
      <small>{o.description}</small>
    </label>
  );
}
