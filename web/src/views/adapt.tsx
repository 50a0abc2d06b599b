/** Adapt: what is marked, one press, what changed, the way back. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { attempt } from "../state/live";
import { adapt, adapting, cancel, changed, current, goTo, hindrance, job, models, nameOf, project, words } from "../state/project";
import { address } from "../state/route";
import * as list from "../state/list";
import { capital, plural, seconds, shortName, when } from "../text";
import type { Change, Item, ModelInfo } from "../types";
import { Icon } from "../ui/icons";
import { ClassDot, Key, Note, Section, Small } from "../ui/parts";
import { Options } from "./adapt_options";

const examples = signal<readonly Item[]>([]);

export function Adapt() {
  const marked = project.value?.row;
  useEffect(() => {
    void attempt(async () => {
      const answer = await api.images({ state: "support", sort: "class" }, 0, 60);
      answer.items.forEach(list.put);
      examples.value = answer.items;
    });
  }, [marked]);
  return (
    <div class="page adapt">
      <h1>Adapt</h1>
      <div class="columns">
        <div>
          <Examples />
          <Press />
        </div>
        <div>
          <WhatChanged />
          <Models />
        </div>
      </div>
    </div>
  );
}

const USUAL = [4, 8, 16];

function Examples() {
  const p = project.value;
  if (!p) return null;
  return (
    <Section title="Your examples">
      {p.classes.map(({ name }) => {
        const n = p.adapt.support[name] ?? 0;
        const goal = USUAL.find((g) => n <= g) ?? n;
        const out = p.adapt.held_out[name] ?? 0;
        return (
          <div class="examples" key={name}>
            <p>
              <ClassDot name={name} /> <strong>{name}</strong>
              <span class="number">
                {n} of {goal}
              </span>
              {out > 0 && <span class="muted">and {out} kept out</span>}
            </p>
            <ul class="pictures">
              {examples.value
                .filter((item) => item.label === name)
                .map((item) => (
                  <li key={item.id}>
                    <a href={address("mark", item.id, item.best)} aria-label={`Example of ${name}: ${shortName(item.name)}`}>
                      <Small id={item.id} frame={item.best} />
                    </a>
                  </li>
                ))}
              {Array.from({ length: Math.max(0, Math.min(16, goal) - n) }, (_, i) => (
                <li key={i} class="free" aria-hidden="true" />
              ))}
            </ul>
          </div>
        );
      })}
      {p.adapt.notes.map((note) => (
        <Note kind="info" key={note}>
          {note}
        </Note>
      ))}
    </Section>
  );
}

function Press() {
  const running = adapting.value;
  const why = running ? "" : hindrance.value;
  return (
    <Section title="New model">
      {running ? (
        <Running />
      ) : (
        <>
          <button
            type="button"
            class="primary big"
            aria-disabled={why !== ""}
            aria-describedby="adapt-why"
            onClick={() => void adapt()}
          >
            <Icon name="adapt" /> Adapt <Key of="adapt" />
          </button>
          <p id="adapt-why" class={why ? "why-not" : "muted"}>
            {why ? capital(why) : "Old maps stay on the screen until new ones replace them."}
          </p>
          {job.value && job.value.kind === "adapt" && job.value.state === "failed" && (
            <Note kind="error">{job.value.error}</Note>
          )}
        </>
      )}
      <Options />
    </Section>
  );
}

export function Running() {
  const running = adapting.value;
  if (!running) return null;
  return (
    <div class="running">
      <progress max={1} value={running.fraction} aria-label="Adapting" />
      <p>{words(running)}</p>
      {running.to_predict > 0 && (
        <p class="muted">
          new maps on {running.predicted} of {plural(running.to_predict, "image")}
        </p>
      )}
      {running.cancellable && (
        <button type="button" onClick={() => void cancel()}>
          Cancel
        </button>
      )}
    </div>
  );
}

function WhatChanged() {
  const c = changed.value;
  const now = current.value;
  if (!c || !now || c.against === null) return null;
  const before = c.against;
  return (
    <Section title={`What changed since ${nameOf(before)}`}>
      <p>{c.text}</p>
      <ChangeList title="Marked, and now missed" kind="warning" items={c.missed} />
      <ChangeList title="Marked normal, and now called abnormal" kind="warning" items={c.false_alarms} />
      <ChangeList title="Found now" items={c.found} />
      <ChangeList title="Not marked, and the decision changed" items={c.flipped.filter((f) => f.label === null)} />
      <p class="muted">Your marks overrule the model on their images, whatever it says.</p>
      <button type="button" onClick={() => void goTo(before)}>
        <Icon name="undo" /> Back to {nameOf(before)}
      </button>
    </Section>
  );
}

function ChangeList({ title, items, kind }: { title: string; items: readonly Change[]; kind?: "warning" }) {
  if (!items.length) return null;
  return (
    <details class="changes" open={kind === "warning"}>
      <summary>
        {kind && <Icon name="warn" />} {title}: {items.length}
      </summary>
      <ul class="rows">
        {items.slice(0, 50).map((c) => (
          <li key={`${c.image}/${c.frame}`}>
            <a class="row-main" href={address("mark", c.image, c.frame)}>
              <Small id={c.image} frame={c.frame} />
              <span>
                {c.before} → <strong>{c.after}</strong>
                <small>
                  {shortName(c.name)}, score {c.score_before.toFixed(2)} → {c.score.toFixed(2)}
                </small>
              </span>
            </a>
          </li>
        ))}
      </ul>
      {items.length > 50 && <p class="muted">and {items.length - 50} more: Images, show "decision changed"</p>}
    </details>
  );
}

function Models() {
  return (
    <Section title="Models">
      {models.value.length === 0 && <p class="muted">None yet. The first press on Adapt makes model 1.</p>}
      <ul class="rows models">
        {models.value.map((m) => (
          <ModelRow key={m.number} model={m} />
        ))}
      </ul>
    </Section>
  );
}

function ModelRow({ model: m }: { model: ModelInfo }) {
  const support = Object.entries(m.support)
    .map(([name, n]) => `${n} ${name}`)
    .join(", ");
  return (
    <li class={m.current ? "chosen" : ""}>
      <span class="row-main">
        <span>
          <strong>{m.name}</strong> {m.current && <span class="chip static">in use</span>}
          <small>
            {support || "zero-shot"} · {m.method} on {m.backbone}
            {m.seconds > 0 && ` · ${seconds(m.seconds)}`} · {when(m.made)}
          </small>
          {m.numbers && m.numbers.source !== "none" && <small>{m.numbers.text}</small>}
          {m.notes.map((note) => (
            <small key={note}>{note}</small>
          ))}
        </span>
      </span>
      {!m.current && (
        <button type="button" onClick={() => void goTo(m.number)} aria-label={`Use ${m.name}`}>
          Use
        </button>
      )}
    </li>
  );
}
