/** The panel beside the image: class, label, marks, suggestions, what the model says, display. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { WHOLE } from "../core/levels";
import * as editor from "../state/editor";
import { attempt, complain } from "../state/live";
import { add, label } from "../state/marks";
import { brush, showMap, showSuggestions } from "../state/prefs";
import { classes, current, lesionClasses, nameOf, queue } from "../state/project";
import { address } from "../state/route";
import { skip, suggested, takeOut } from "../state/walk";
import { capital, plural } from "../text";
import type { Lesion, Pred, Suggestion } from "../types";
import { Icon } from "../ui/icons";
import { backToStage } from "../ui/keyboard";
import { Bars, ClassDot, Key, Note, OpacitySlider, Section, Slider, Small, Switch, Tool } from "../ui/parts";
import { Why } from "./mark_why";

export function Side() {
  return (
    <aside class="side" aria-label="Marks and display">
      <NextMark />
      <WholeImage />
      <Marks />
      <Suggestions />
      <Model />
      <Why />
      <Display />
      <NextUp />
      <About />
    </aside>
  );
}

function NextMark() {
  return (
    <Section title="Class of the next mark">
      <div class="choices" role="group" aria-label="Class of the next mark" onClick={backToStage}>
        {lesionClasses.value.map((name) => (
          <button
            type="button"
            key={name}
            class="choice"
            aria-pressed={editor.cls.value === name}
            onClick={() => editor.takeClass(name)}
          >
            <ClassDot name={name} /> {name}
            <Key of={`class${classes.value.findIndex((c) => c.name === name) + 1}`} />
          </button>
        ))}
      </div>
      <label class="check" title="Otherwise touching strokes of one class are one lesion">
        <input
          type="checkbox"
          checked={editor.apart.value}
          onChange={(e) => (editor.apart.value = e.currentTarget.checked)}
        />
        Next stroke is a new lesion <Key of="apart" />
      </label>
    </Section>
  );
}

function WholeImage() {
  const marks = editor.marks.value;
  const now = editor.shownFrame.value;
  if (!marks || !now) return null;
  const own = marks.label_from === "lesions" ? null : marks.label;
  return (
    <Section title="Whole image">
      <div class="choices" role="group" aria-label="Label of the whole image" onClick={backToStage}>
        {classes.value.map((c, i) => (
          <button
            type="button"
            key={c.name}
            class="choice"
            aria-pressed={own === c.name}
            onClick={() => label(now.image, now.frame, c.name)}
          >
            <ClassDot name={c.name} hollow /> {c.name}
            <Key of={c.normal ? `class${i + 1}` : `label${i + 1}`} />
          </button>
        ))}
      </div>
      {marks.label_from === "lesions" && <p class="muted">{marks.label}, from the lesions</p>}
      {marks.conflict && <Note kind="warning">{marks.conflict}</Note>}
      <Role />
    </Section>
  );
}

function Role() {
  const marks = editor.marks.value;
  const now = editor.shownFrame.value;
  if (!marks || !now || (marks.label === null && !marks.lesions.length)) return null;
  const out = marks.role === "held_out";
  return (
    <label class="check" title="Kept out of adapting, so that the numbers shown are honest">
      <input
        type="checkbox"
        checked={out}
        onChange={() => add(now.image, now.frame, { kind: "role", role: out ? "support" : "held_out" })}
      />
      Keep out, to test the model
    </label>
  );
}

function Marks() {
  const lesions = editor.marks.value?.lesions ?? [];
  return (
    <Section title={lesions.length ? `Marks (${lesions.length})` : "Marks"}>
      {lesions.length === 0 && <p class="muted">None on this frame. Draw on the image.</p>}
      <ul class="rows" id="marks">
        {lesions.map((lesion) => (
          <MarkRow key={lesion.lesion} lesion={lesion} />
        ))}
      </ul>
    </Section>
  );
}

function MarkRow({ lesion }: { lesion: Lesion }) {
  const chosen = editor.selected.value === lesion.lesion;
  const origin = lesion.origin === "drawn" ? "" : ` · ${lesion.origin}`;
  return (
    <li
      class={chosen ? "chosen" : ""}
      onKeyDown={(e) => {
        if (e.key === "Delete" && e.target instanceof HTMLButtonElement) {
          e.preventDefault();
          editor.remove(lesion);
        }
      }}
    >
      <button
        type="button"
        class="row-main"
        aria-pressed={chosen}
        onClick={() => (editor.selected.value = chosen ? null : lesion.lesion)}
      >
        <ClassDot name={lesion.class} />
        <span>
          {lesion.text}
          <small>
            {lesion.rater}
            {origin}
            {lesion.rule && ` · ${lesion.rule}`}
          </small>
        </span>
      </button>
      <Tool icon="bin" label={`Delete ${lesion.text}`} onClick={() => editor.remove(lesion)} />
    </li>
  );
}

function Suggestions() {
  const from = editor.offers.value;
  const offered = editor.proposal.value;
  return (
    <Section
      title="Suggestions"
      aside={<Switch label="shown" on={showSuggestions.value} set={(on) => (showSuggestions.value = on)} action="suggestions" />}
    >
      {offered && (
        <div class="proposal">
          <p>
            {offered.tool}: {offered.rule}
          </p>
          <p class="buttons">
            <button type="button" class="primary" onClick={() => editor.finish()}>
              Take it <Key of="accept" />
            </button>
            <button type="button" onClick={editor.drop}>
              Drop <Key of="cancel" />
            </button>
          </p>
        </div>
      )}
      {!from && !offered && <p class="muted">None yet. Adapt the model first.</p>}
      {from && from.suggestions.length === 0 && !offered && (
        <p class="muted">Nothing above the threshold that is not marked already.</p>
      )}
      {showSuggestions.value && from && (
        <ul class="rows">
          {from.suggestions.map((one) => (
            <Offer key={one.index} one={one} />
          ))}
        </ul>
      )}
      {from && <Threshold value={from.threshold} />}
    </Section>
  );
}

function Offer({ one }: { one: Suggestion }) {
  return (
    <li>
      <span class="row-main">
        <ClassDot name={one.class} hollow />
        <span>
          {one.text}
          <small>from {nameOf(editor.offers.value?.model ?? 0)}</small>
        </span>
      </span>
      <button type="button" onClick={() => editor.accept(one)} aria-label={`Accept ${one.text}`}>
        Accept
      </button>
    </li>
  );
}

function Threshold({ value }: { value: number }) {
  const shown = useSignal(value);
  useEffect(() => {
    shown.value = value;
  }, [value]);
  return (
    <Slider
      label="Map threshold"
      min={0.02}
      max={0.98}
      step={0.01}
      value={shown.value}
      text={shown.value.toFixed(2)}
      onInput={(v) => (shown.value = v)}
      onChange={(v) => {
        editor.threshold.value = v;
        editor.refreshOffers().catch(complain);
      }}
    />
  );
}

function Model() {
  const d = editor.detail.value;
  const pred = editor.pred.value;
  const t = current.value?.image_threshold;
  return (
    <Section title={pred ? `${capital(nameOf(pred.model))} says` : "Model"}>
      {!pred && <p class="muted">Nothing yet about this image.</p>}
      {pred && (
        <>
          <p class="says">
            <strong>{pred.class ?? (pred.abnormal ? "abnormal" : "normal")}</strong>
            <span class="muted">
              score {pred.score.toFixed(2)}
              {t !== undefined && pred.model === current.value?.number && `, threshold ${t.toFixed(2)}`}
            </span>
          </p>
          {pred.out_of_scope && (
            <Note kind="warning">Out of scope: unlike what the model can judge. Its answer means nothing here.</Note>
          )}
          <PredictionSet pred={pred} />
          <Bars pred={pred} />
          {current.value && pred.model !== current.value.number && (
            <p class="muted">{capital(nameOf(current.value.number))} comes to this image soon.</p>
          )}
        </>
      )}
      {d?.warnings.map((w) => (
        <Note kind="warning" key={w}>
          {w}
        </Note>
      ))}
    </Section>
  );
}

/** Every class that the image may be, with what that promises; or why the model promises nothing. */
function PredictionSet({ pred }: { pred: Pred }) {
  const sets = current.value?.number === pred.model ? current.value.sets : "";
  if (pred.set) {
    return (
      <p class="set" title={sets}>
        May be, at 90 %: <strong>{pred.set.length ? pred.set.join(", ") : "none of the classes"}</strong>
      </p>
    );
  }
  return sets.startsWith("no ") ? <p class="muted set">{capital(sets)}.</p> : null;
}

function Display() {
  const levels = editor.levels.value;
  return (
    <Section title="Display">
      <Switch label="Map" on={showMap.value} set={(on) => (showMap.value = on)} action="overlay" />
      <OpacitySlider />
      <Slider
        label="Brush radius"
        min={2}
        max={150}
        step={1}
        value={brush.value}
        text={`${editor.radius.value} px`}
        onInput={(v) => (brush.value = v)}
      />
      <Slider
        label="Level"
        min={0}
        max={255}
        step={1}
        value={levels.level}
        text={`${levels.level}`}
        onInput={(level) => (editor.levels.value = { ...levels, level })}
      />
      <Slider
        label="Window"
        min={4}
        max={512}
        step={1}
        value={levels.window}
        text={`${levels.window}`}
        onInput={(window) => (editor.levels.value = { ...levels, window })}
      />
      <button type="button" class="plain" onClick={() => (editor.levels.value = WHOLE)}>
        Reset level and window <Key of="levels" />
      </button>
    </Section>
  );
}

function About() {
  const d = editor.detail.value;
  const sure = useSignal(false);
  if (!d) return null;
  return (
    <Section title="This image">
      <p class="muted">
        {d.name}, {d.width} x {d.height} pixels
        {d.patient && `, patient ${d.patient}`}
        {d.device && `, ${d.device}`}
        {d.spacing_mm
          ? `; ${d.spacing_mm.map((mm) => mm.toFixed(3)).join(" x ")} mm per pixel, from ${d.spacing_source ?? "the file"}`
          : "; no pixel spacing is known"}
      </p>
      <button
        type="button"
        class={sure.value ? "danger" : ""}
        onBlur={() => (sure.value = false)}
        onClick={() => (sure.value ? void attempt(() => takeOut(d.id)) : (sure.value = true))}
      >
        <Icon name="bin" /> {sure.value ? "Remove it with its marks" : "Remove from the project"}
      </button>
    </Section>
  );
}

function NextUp() {
  const q = queue.value;
  const items = (q?.items ?? []).filter((i) => i.image !== editor.shownFrame.value?.image).slice(0, 4);
  return (
    <Section title="Mark this next">
      {q?.message && <p class="muted">{q.message}</p>}
      <ul class="rows">
        {items.map((i) => (
          <li key={`${i.image}/${i.frame}`}>
            <a class="row-main" href={address("mark", i.image, i.frame)}>
              <Small id={i.image} frame={i.frame} />
              <span>
                {i.reason}
                <small>{i.name}</small>
              </span>
            </a>
          </li>
        ))}
      </ul>
      <p class="buttons">
        <button type="button" onClick={() => void suggested()} disabled={!items.length}>
          <Icon name="next" /> Next suggested <Key of="suggested" />
        </button>
        <button type="button" onClick={() => void skip()}>
          <Icon name="skip" /> Skip <Key of="skip" />
        </button>
      </p>
      {q && q.items.length > 4 && <p class="muted">{plural(q.items.length, "image")} in the queue</p>}
    </Section>
  );
}
