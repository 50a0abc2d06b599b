/** The frame around the views: where you are, whether all is saved, Adapt, and that this is for research only. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { dismiss, errors, status } from "../state/live";
import { kept, line, waiting } from "../state/outbox";
import { rater, theme } from "../state/prefs";
import { adapt, adapting, busy, cancel, changed, current, fresh, goTo, hindrance, nameOf, project, words } from "../state/project";
import { address, route, VIEWS, type ViewName } from "../state/route";
import { capital, plural } from "../text";
import { Adapt } from "../views/adapt";
import { Browse } from "../views/browse";
import { Look } from "../views/look";
import { Mark } from "../views/mark";
import { Next } from "../views/next";
import { Take } from "../views/take";
import { Help } from "./help";
import { Icon } from "./icons";
import { dropped, send } from "./import";
import { offer } from "./keyboard";
import { Key, Tool } from "./parts";
import { Settings } from "./settings";

const NAMES: Record<ViewName, string> = {
  images: "Images",
  mark: "Mark",
  next: "Next",
  adapt: "Adapt",
  look: "Look",
  take: "Take away",
};

const PAGES = { images: Browse, mark: Mark, next: Next, adapt: Adapt, look: Look, take: Take };

export function Shell() {
  const help = useSignal(false);
  const settings = useSignal(false);
  const over = useSignal(false);
  const main = useRef<HTMLElement>(null);
  const { view } = route.value;
  const first = useRef(true);
  useEffect(() => offer("any", { help: () => (help.value = true), adapt: () => void adapt() }), []);
  useEffect(() => {
    document.title = `${NAMES[view]} · ${project.value?.title ?? ""} · ultraad`;
    if (!first.current && view !== "mark") main.current?.focus({ preventScroll: true });
    first.current = false;
  }, [view, project.value?.title]);
  const View = PAGES[view];
  return (
    <div
      class={`shell view-${view}`}
      onDragOver={(e) => {
        if (!e.dataTransfer?.types.includes("Files")) return;
        e.preventDefault();
        over.value = true;
      }}
      onDragLeave={(e) => {
        if (e.relatedTarget === null) over.value = false;
      }}
      onDrop={(e) => {
        over.value = false;
        if (!e.dataTransfer?.types.includes("Files")) return;
        e.preventDefault();
        void dropped(e.dataTransfer).then(send);
      }}
    >
      <a class="jump" href="#main" onClick={(e) => (e.preventDefault(), main.current?.focus())}>
        To the content
      </a>
      <header class="top">
        <span class="brand">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M16 5 4 25a20 20 0 0 0 24 0Z" />
            <circle cx="17" cy="19" r="4" />
          </svg>
          <span>ultraad</span>
        </span>
        <Tabs />
        <div class="right">
          <Saved />
          <AdaptButton />
          <button type="button" class="plain who" onClick={() => (settings.value = true)} title="Settings">
            <Icon name="gear" /> <span>{rater.value || project.value?.title}</span>
            <span class="hidden">settings</span>
          </button>
          <Tool
            icon={theme.value === "dark" ? "sun" : "moon"}
            label={theme.value === "dark" ? "Light theme" : "Dark theme"}
            onClick={() => (theme.value = theme.value === "dark" ? "light" : "dark")}
          />
          <Tool icon="help" label="Keys" action="help" onClick={() => (help.value = true)} />
        </div>
      </header>
      <Banners />
      <main id="main" tabIndex={-1} ref={main}>
        <View />
      </main>
      <footer class="bottom">
        <span class="research">
          <strong>Research use only.</strong> <span>Not a medical device.</span>
        </span>
        <span class="status" role="status" aria-live="polite">
          {status.value}
        </span>
        <span class="model">{current.value ? current.value.name : "no model yet"}</span>
      </footer>
      {over.value && <div class="drop-over">Drop to add images</div>}
      {help.value && <Help onClose={() => (help.value = false)} />}
      {settings.value && <Settings onClose={() => (settings.value = false)} />}
    </div>
  );
}

function Tabs() {
  return (
    <nav class="views" aria-label="Views">
      {VIEWS.map((name) => (
        <a key={name} href={address(name)} {...(route.value.view === name ? { "aria-current": "page" as const } : {})}>
          <Icon name={name} /> <span>{NAMES[name]}</span>
        </a>
      ))}
    </nav>
  );
}

/** Green only when every mark is on the server's disk. */
function Saved() {
  const n = waiting.value.length;
  const away = line.value !== "on";
  const state = away ? "away" : n ? "saving" : "saved";
  const text = away ? (n ? `${n} wait here` : "server away") : n ? "saving" : "saved";
  const long = away
    ? `${line.value === "full" ? "The server cannot save." : "The server does not answer."} ${n ? `${plural(n, "mark")} ${n === 1 ? "waits" : "wait"} in this browser and ${n === 1 ? "is" : "are"} sent when it is back.` : "Marks you make wait in this browser."}`
    : n
      ? `${plural(n, "mark")} on the way to the server`
      : "Every mark is saved";
  return (
    <span class={`line ${state}`} data-saved={state === "saved"} title={long}>
      <span class="lamp" aria-hidden="true" />
      <span>{text}</span>
    </span>
  );
}

function AdaptButton() {
  const running = adapting.value;
  if (running) {
    return (
      <span class="adapt-box">
        <progress max={1} value={running.fraction} aria-label={`Adapting: ${running.text}`} />
        <span class="number wide-only">{running.text}</span>
        <button type="button" onClick={() => void cancel()} disabled={!running.cancellable}>
          Cancel
        </button>
      </span>
    );
  }
  const why = hindrance.value;
  return (
    <span class="adapt-box">
      <button
        type="button"
        id="adapt"
        class="primary"
        aria-disabled={why !== ""}
        title={why ? capital(why) : "Adapt the model to your marks"}
        aria-describedby="why-not"
        onClick={() => void adapt()}
      >
        <Icon name="adapt" /> <span>Adapt</span> <Key of="adapt" />
      </button>
      <span id="why-not" class="why-not wide-only">
        {why}
      </span>
    </span>
  );
}

function Banners() {
  const running = busy.value;
  return (
    <div class="banners">
      {line.value === "locked" && (
        <p class="note error" role="alert">
          <Icon name="warn" />
          <span>
            The server was started again: open the new address that it printed in the terminal. {plural(waiting.value.length, "mark")}{" "}
            {waiting.value.length === 1 ? "waits" : "wait"} in this browser and will be saved then.
          </span>
        </p>
      )}
      {line.value === "away" && (
        <p class="note warning" role="alert">
          <Icon name="warn" />
          <span>The server does not answer. Go on marking: marks wait in this browser and are saved when it is back.</span>
        </p>
      )}
      {line.value === "full" && (
        <p class="note error" role="alert">
          <Icon name="warn" />
          <span>
            The disk of the project is full. Marks wait in this browser and are saved as soon as there is free space; nothing is
            lost.
          </span>
        </p>
      )}
      {!kept.value && (
        <p class="note warning" role="alert">
          <Icon name="warn" />
          <span>This browser keeps nothing (private window?): marks made while the server is away would be lost with the tab.</span>
        </p>
      )}
      <div role="alert">
        {errors.value.map((text) => (
          <p class="note error" key={text}>
            <Icon name="warn" />
            <span>{text}</span>
            <Tool icon="close" label="Close this message" onClick={() => dismiss(text)} />
          </p>
        ))}
      </div>
      <Ready />
      {running && running.kind !== "adapt" && (
        <p class="progress-line thin-line">
          <progress max={1} value={running.fraction} aria-label={running.text} /> <span>{words(running)}</span>
        </p>
      )}
    </div>
  );
}

/** After Adapt: what changed, and the ways on. */
function Ready() {
  const model = current.value;
  if (!model || fresh.value !== model.number) return null;
  const c = changed.value;
  const before = c?.against ?? null;
  return (
    <div class="note ready">
      <Icon name="adapt" />
      <span>
        <strong>{capital(model.name)} is ready.</strong> {c && before !== null && `Since ${nameOf(before)}: ${c.text}.`}
      </span>
      <span class="buttons">
        <a class="button" href={address("look")} onClick={() => (fresh.value = null)}>
          Look
        </a>
        <a class="button" href={address("adapt")} onClick={() => (fresh.value = null)}>
          What changed
        </a>
        {before !== null && (
          <button type="button" onClick={() => void goTo(before)}>
            Back to {nameOf(before)}
          </button>
        )}
        <Tool icon="close" label="Close this message" onClick={() => (fresh.value = null)} />
      </span>
    </div>
  );
}
