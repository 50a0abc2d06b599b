/** Project and person: names, classes, what is kept out, a second rater, deleting everything. */

import { useSignal } from "@preact/signals";
import * as api from "../api";
import { attempt, say } from "../state/live";
import { rater, seenPen, theme } from "../state/prefs";
import { project, refreshProject } from "../state/project";
import { percent } from "../text";
import { Icon } from "./icons";
import { VoiceSettings } from "./voice";
import { Dialog, Pick, Section, Slider, Switch, Tool } from "./parts";

async function change(what: object): Promise<boolean> {
  return attempt(async () => {
    project.value = await api.changeProject(what);
  });
}

export function Settings({ onClose }: { onClose: () => void }) {
  const p = project.value;
  if (!p) return null;
  return (
    <Dialog title="Settings" onClose={onClose}>
      <Section title="You">
        <label class="field">
          <span>Your name, saved with each mark</span>
          <input
            type="text"
            value={rater.value}
            placeholder="rater 1"
            maxLength={60}
            onChange={(e) => (rater.value = e.currentTarget.value.trim())}
          />
        </label>
        <Pick
          label="Theme"
          value={theme.value}
          options={[
            ["dark", "dark, for a dark room"],
            ["light", "light"],
          ]}
          onPick={(v) => (theme.value = v as "dark" | "light")}
        />
        <Switch label="A pen is used: fingers move the image" on={seenPen.value} set={(on) => (seenPen.value = on)} />
      </Section>
      <Section title="Project">
        <label class="field">
          <span>Title</span>
          <input
            type="text"
            value={p.title}
            maxLength={80}
            onChange={(e) => void change({ title: e.currentTarget.value.trim() || p.title })}
          />
        </label>
        <Classes />
        <Share />
      </Section>
      <VoiceSettings />
      <Invite />
      <DeleteAll onDone={onClose} />
    </Dialog>
  );
}

function Classes() {
  const p = project.value!;
  const fresh = useSignal("");
  return (
    <fieldset>
      <legend>Classes, in the order of the keys</legend>
      <ul class="rows">
        {p.classes.map((c, i) => (
          <li key={c.name}>
            <label class="field inline">
              <span>
                {i + 1}
                {c.normal ? " (no lesion)" : ""}
              </span>
              <input
                type="text"
                value={c.name}
                aria-label={`Name of class ${i + 1}`}
                onChange={(e) => {
                  const name = e.currentTarget.value.trim();
                  if (!name || name === c.name) return;
                  const classes = p.classes.map((o) => (o === c ? { ...o, name, was: c.name } : o));
                  void change({ classes });
                }}
              />
            </label>
            {!c.normal && p.classes.length > 2 && (
              <Tool
                icon="bin"
                label={`Remove class ${c.name}`}
                onClick={() => void change({ classes: p.classes.filter((o) => o !== c) })}
              />
            )}
          </li>
        ))}
      </ul>
      <form
        class="inline-form"
        onSubmit={(e) => {
          e.preventDefault();
          const name = fresh.value.trim();
          if (!name) return;
          void change({ classes: [...p.classes, { name, normal: false }] }).then((done) => {
            if (done) fresh.value = "";
          });
        }}
      >
        <input
          type="text"
          aria-label="New class"
          placeholder="new class"
          value={fresh.value}
          onInput={(e) => (fresh.value = e.currentTarget.value)}
        />
        <button type="submit" disabled={!fresh.value.trim()}>
          Add
        </button>
      </form>
    </fieldset>
  );
}

function Share() {
  const p = project.value!;
  const share = useSignal(p.held_out_share);
  return (
    <Slider
      label="Drawn at random and kept out"
      min={0}
      max={0.5}
      step={0.05}
      value={share.value}
      text={percent(share.value)}
      onInput={(v) => (share.value = v)}
      onChange={(v) => void change({ held_out_share: v })}
    />
  );
}

function Invite() {
  const address = useSignal("");
  return (
    <Section title="A second browser or rater">
      <p class="muted">An address that works once, on this machine.</p>
      {address.value ? (
        <p>
          <code class="address">{address.value}</code>
        </p>
      ) : (
        <button
          type="button"
          onClick={() => void attempt(async () => (address.value = (await api.invite()).address))}
        >
          <Icon name="people" /> Make an address
        </button>
      )}
    </Section>
  );
}

function DeleteAll({ onDone }: { onDone: () => void }) {
  const typed = useSignal("");
  const p = project.value!;
  return (
    <Section title="Delete everything">
      <p class="muted">
        Marks, uploaded files, models and exports of this project. Images that were opened from a folder stay there.
      </p>
      <form
        class="inline-form"
        onSubmit={(e) => {
          e.preventDefault();
          void attempt(async () => {
            await api.deleteProject(typed.value);
            await refreshProject();
            say("everything was deleted");
            location.reload();
          }).then(onDone);
        }}
      >
        <input
          type="text"
          aria-label={`Type ${p.title} to delete everything`}
          placeholder={`type ${p.title}`}
          value={typed.value}
          onInput={(e) => (typed.value = e.currentTarget.value)}
        />
        <button type="submit" class="danger" disabled={typed.value !== p.title}>
          Delete everything
        </button>
      </form>
    </Section>
  );
}
