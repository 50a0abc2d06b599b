/** What could make the results wrong: duplicates, calipers as a shortcut, one patient on both sides. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { attempt } from "../state/live";
import { busy, job } from "../state/project";
import { address } from "../state/route";
import { capital } from "../text";
import type { Check } from "../types";
import { Note, Small } from "../ui/parts";

export function Beware() {
  const check = useSignal<Check | null>(null);
  const state = job.value?.kind === "check" ? job.value.state : "";
  useEffect(() => void attempt(async () => (check.value = await api.check())), [state]);
  const c = check.value;
  const running = busy.value?.kind === "check";
  return (
    <div class="page beware">
      <p class="buttons">
        <button
          type="button"
          disabled={busy.value !== null && busy.value.kind !== "predict"}
          onClick={() =>
            void attempt(async () => {
              job.value = await api.startJob({ kind: "check" });
            })
          }
        >
          {running ? "Checking" : c?.state === "none" ? "Check the data" : "Check again"}
        </button>
        {c?.state === "stale" && <span class="muted">Images were added since the last check.</span>}
      </p>
      {c?.state === "none" && !running && (
        <p class="empty">
          Not checked yet. The check looks for what could make the results look better than they are: duplicates, one patient
          on both sides, calipers that tell the class.
        </p>
      )}
      {running && <progress max={1} value={busy.value?.fraction ?? 0} aria-label="Checking the data" />}
      {c?.state === "done" && c.findings.length === 0 && <p class="empty">Nothing found that would distort the results.</p>}
      <ul class="findings">
        {c?.findings.map((f) => (
          <li key={f.kind + f.message}>
            <Note kind={f.severity}>{capital(f.message)}</Note>
            {f.images.length > 0 && (
              <ul class="pictures">
                {f.images.slice(0, 24).map((id) => (
                  <li key={id}>
                    <a href={address("mark", id, 0)} aria-label="Image of this finding">
                      <Small id={id} frame={0} />
                    </a>
                  </li>
                ))}
              </ul>
            )}
            {f.items.length > 0 && (
              <details>
                <summary>{f.items.length} details</summary>
                <ul>
                  {f.items.map((i) => (
                    <li key={i}>{i}</li>
                  ))}
                </ul>
              </details>
            )}
          </li>
        ))}
      </ul>
    </div>
  );
}
