/** Take away: predictions, masks, the support set, the model, a report, as one folder the command line understands. */

import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { attempt, say } from "../state/live";
import { busy, current, job, nameOf, words } from "../state/project";
import { bytes, plural, when } from "../text";
import type { Export } from "../types";
import { Icon } from "../ui/icons";
import { Section, Tool } from "../ui/parts";

const WHAT = [
  ["predictions", "Predictions", "one row per image: score, decision, class; CSV and JSON lines"],
  ["masks", "Masks", "one PNG for each marked image, with a table of classes and patients"],
  ["coco", "Outlines", "the same marks as one COCO file"],
  ["support", "Support set", "your examples, to adapt again elsewhere"],
  ["model", "Model", "the bundle that 'ultraad predict' and 'ultraad evaluate' load"],
  ["report", "Report", "report.html: numbers on the images that were kept out"],
] as const;

const made = signal<readonly Export[]>([]);

async function refresh(): Promise<void> {
  made.value = await api.exports();
}

export function Take() {
  const chosen = useSignal(new Set<string>(WHAT.map(([name]) => name)));
  const exporting = busy.value?.kind === "export" ? busy.value : null;
  const finished = job.value?.kind === "export" ? job.value.state : "";
  useEffect(() => void attempt(refresh), [finished]);
  const hindered = current.value === null;
  return (
    <div class="page take">
      <h1>Take away</h1>
      <div class="columns">
        <Section title="New export">
          <ul class="rows">
            {WHAT.map(([name, title, about]) => (
              <li key={name}>
                <label class="row-main">
                  <input
                    type="checkbox"
                    checked={chosen.value.has(name)}
                    onChange={(e) => {
                      const next = new Set(chosen.value);
                      if (e.currentTarget.checked) next.add(name);
                      else next.delete(name);
                      chosen.value = next;
                    }}
                  />
                  <span>
                    {title}
                    <small>{about}</small>
                  </span>
                </label>
              </li>
            ))}
          </ul>
          {exporting ? (
            <p class="progress-line">
              <progress max={1} value={exporting.fraction} aria-label="Exporting" /> {words(exporting)}
            </p>
          ) : (
            <button
              type="button"
              class="primary"
              disabled={hindered || chosen.value.size === 0 || (busy.value !== null && busy.value.kind !== "predict")}
              onClick={() =>
                void attempt(async () => {
                  job.value = await api.startJob({ kind: "export", what: [...chosen.value] });
                })
              }
            >
              <Icon name="take" /> Export
            </button>
          )}
          {busy.value && busy.value.kind !== "predict" && !exporting && <p class="muted">Waits for: {busy.value.text}</p>}
          {hindered && <p class="muted">The starting model is not ready yet.</p>}
        </Section>
        <Section title="Exports">
          {made.value.length === 0 && <p class="muted">None yet.</p>}
          <ul class="rows exports">
            {made.value.map((e) => (
              <ExportRow key={e.number} it={e} />
            ))}
          </ul>
        </Section>
      </div>
    </div>
  );
}

function ExportRow({ it }: { it: Export }) {
  const sure = useSignal(false);
  return (
    <li>
      <div class="row-main">
        <div>
          <strong>Export {it.number}</strong>
          <small>
            {it.model === null ? "marks only" : nameOf(it.model)} · {plural(it.files, "file")}, {bytes(it.bytes)} ·{" "}
            {when(it.made)}
          </small>
          <small>
            in the project folder: <code>{it.folder}</code>
          </small>
          {it.command && (
            <p class="command">
              <code>{it.command}</code>
              <button
                type="button"
                class="plain"
                onClick={() =>
                  void attempt(async () => {
                    await navigator.clipboard.writeText(it.command);
                    say("command copied");
                  })
                }
              >
                <Icon name="copy" /> Copy
              </button>
            </p>
          )}
          <p class="buttons">
            <a class="button" href={api.archive(it.number)} download>
              <Icon name="take" /> Download
            </a>
            {it.what.includes("report") && (
              <a class="button" href={api.report(it.number)} target="_blank" rel="noreferrer">
                Open the report
              </a>
            )}
          </p>
        </div>
      </div>
      {sure.value ? (
        <button
          type="button"
          class="danger"
          onClick={() =>
            void attempt(async () => {
              await api.removeExport(it.number);
              await refresh();
            })
          }
        >
          Delete for good
        </button>
      ) : (
        <Tool icon="bin" label={`Delete export ${it.number}`} onClick={() => (sure.value = true)} />
      )}
    </li>
  );
}
