/** Small parts that several views use. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { thumbnail } from "../api";
import { classColour } from "../core/colours";
import { keysOf, ACTIONS } from "../core/keys";
import { bindings, opacity } from "../state/prefs";
import { classes } from "../state/project";
import { percent } from "../text";
import type { Pred } from "../types";
import { Icon, type IconName } from "./icons";

/** The first key of an action, for hints; null if it has none. */
export function keyOf(id: string): string | null {
  const action = ACTIONS.find((a) => a.id === id);
  return (action && keysOf(action, bindings.value)[0]) ?? null;
}

export function Key({ of }: { of: string }) {
  const key = keyOf(of);
  return key ? <kbd aria-hidden="true">{sign(key)}</kbd> : null;
}

/** "Shift+Enter" as it is printed on keys. */
export const sign = (key: string): string => key.replace("Shift+", "⇧").replace("Arrow", "");

interface ToolProps {
  icon: IconName;
  label: string;
  action?: string;
  pressed?: boolean;
  disabled?: boolean;
  onClick: () => void;
  id?: string;
}

/** A button that is a picture; its words are its label and its tip, with the key. */
export function Tool({ icon, label, action, pressed, disabled, onClick, id }: ToolProps) {
  const key = action ? keyOf(action) : null;
  return (
    <button
      type="button"
      class="tool"
      {...(id ? { id } : {})}
      aria-label={label}
      title={key ? `${label} (${key})` : label}
      {...(key ? { "aria-keyshortcuts": key } : {})}
      {...(pressed === undefined ? {} : { "aria-pressed": pressed })}
      disabled={disabled ?? false}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}

interface SliderProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  text: string;
  onInput: (value: number) => void;
  onChange?: (value: number) => void;
  disabled?: boolean;
}

export function Slider({ label, value, min, max, step, text, onInput, onChange, disabled }: SliderProps) {
  const id = useId();
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <output for={id}>{text}</output>
      <input
        id={id}
        type="range"
        min={min}
        max={max}
        step={step}
        value={value}
        disabled={disabled ?? false}
        aria-valuetext={text}
        onInput={(e) => onInput(Number(e.currentTarget.value))}
        onChange={(e) => onChange?.(Number(e.currentTarget.value))}
      />
    </div>
  );
}

export function OpacitySlider() {
  return (
    <Slider
      label="Map opacity"
      min={0}
      max={1}
      step={0.05}
      value={opacity.value}
      text={percent(opacity.value)}
      onInput={(v) => (opacity.value = v)}
    />
  );
}

export function Switch({ label, on, set, action }: { label: string; on: boolean; set: (on: boolean) => void; action?: string }) {
  return (
    <label class="switch">
      <input type="checkbox" role="switch" checked={on} onChange={(e) => set(e.currentTarget.checked)} />
      <span>{label}</span>
      {action && <Key of={action} />}
    </label>
  );
}

interface PickProps {
  label: string;
  value: string;
  options: readonly (readonly [value: string, words: string])[];
  onPick: (value: string) => void;
}

export function Pick({ label, value, options, onPick }: PickProps) {
  return (
    <label class="pick">
      <span>{label}</span>
      <select value={value} onChange={(e) => onPick(e.currentTarget.value)}>
        {options.map(([v, words]) => (
          <option key={v} value={v} selected={v === value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Colour and letter of a class, so that the colour is never alone. */
export function ClassDot({ name, hollow }: { name: string | null; hollow?: boolean }) {
  const colour = classColour(classes.value, name);
  return (
    <span class={`dot${hollow ? " hollow" : ""}`} style={{ "--dot": colour }} aria-hidden="true">
      {(name ?? "?").charAt(0).toUpperCase()}
    </span>
  );
}

/** One bar per class. */
export function Bars({ pred }: { pred: Pred }) {
  const probs = pred.probs ?? { abnormal: pred.score, normal: 1 - pred.score };
  return (
    <ul class="bars">
      {Object.entries(probs).map(([name, p]) => (
        <li key={name}>
          <span class="bar-name">{name}</span>
          <span class="bar" aria-hidden="true">
            <span style={{ width: `${100 * p}%`, background: classColour(classes.value, name) }} />
          </span>
          <span class="number">{percent(p)}</span>
        </li>
      ))}
    </ul>
  );
}

/** All classes in one thin bar, for tiles. */
export function ThinBar({ pred }: { pred: Pred }) {
  if (!pred.probs) return null;
  return (
    <span class="thin" aria-hidden="true">
      {Object.entries(pred.probs).map(([name, p]) => (
        <span key={name} style={{ width: `${100 * p}%`, background: classColour(classes.value, name) }} />
      ))}
    </span>
  );
}

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}

export function Dialog({ title, onClose, children, wide }: DialogProps) {
  const box = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    box.current!.showModal();
    return () => (before instanceof HTMLElement || before instanceof SVGElement) && before.focus();
  }, []);
  return (
    <dialog ref={box} class={wide ? "wide" : ""} aria-labelledby={id} onClose={onClose}>
      <header>
        <h2 id={id}>{title}</h2>
        <Tool icon="close" label="Close" onClick={() => box.current!.close()} />
      </header>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}

export function Section({ title, children, aside }: { title: string; children: ComponentChildren; aside?: ComponentChildren }) {
  const id = useId();
  return (
    <section class="section" aria-labelledby={id}>
      <header>
        <h2 id={id}>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

/** A note in words with a mark; `kind` is said, not only coloured. */
export function Note({ kind, children }: { kind: "info" | "warning" | "error"; children: ComponentChildren }) {
  return (
    <p class={`note ${kind}`}>
      {kind !== "info" && <Icon name="warn" />}
      {kind !== "info" && <span class="hidden">{kind}: </span>}
      <span>{children}</span>
    </p>
  );
}

/** A small picture, for lists in words; in the size that is on the disk: a smaller one would be decoded each time. */
export function Small({ id, frame }: { id: string; frame: number }) {
  return <img class="small" src={thumbnail(id, frame)} alt="" loading="lazy" decoding="async" onError={blank} />;
}

/** The sign of a broken picture says nothing that the tile does not say in words. */
function blank(event: Event): void {
  (event.currentTarget as HTMLElement).style.visibility = "hidden";
}
