/** Add images: drop files or folders, choose them, or name a folder of this machine. */

import { signal, useSignal } from "@preact/signals";
import * as api from "../api";
import { uuid } from "../core/uuid";
import { attempt, say } from "../state/live";
import { importing } from "../state/project";
import { plural } from "../text";
import { Icon } from "./icons";
import { Dialog, Note } from "./parts";

interface Named {
  path: string;
  file: File;
}

const MOST_FILES = 50;
const MOST_BYTES = 48e6;

export const sending = signal<{ sent: number; of: number } | null>(null);
const refused = signal<readonly { name: string; reason: string }[]>([]);
const useMarks = signal(true);

/** Sends files in parts and imports them as one batch. */
export async function send(files: readonly Named[]): Promise<void> {
  if (!files.length) {
    say("No file was found in what was dropped");
    return;
  }
  const batch = uuid();
  refused.value = [];
  await attempt(async () => {
    for (let at = 0; at < files.length; ) {
      sending.value = { sent: at, of: files.length };
      const form = new FormData();
      let size = 0;
      let n = 0;
      for (const { path, file } of files.slice(at, at + MOST_FILES)) {
        if (n && size + file.size > MOST_BYTES) break;
        form.append("file", file, path);
        size += file.size;
        n++;
      }
      const answer = await api.upload(batch, form);
      refused.value = [...refused.value, ...answer.refused];
      at += n;
    }
    importing.value = await api.importBatch(batch, useMarks.value);
  });
  sending.value = null;
}

/** The files of a drop, folders walked through. */
export async function dropped(data: DataTransfer): Promise<Named[]> {
  const entries = [...data.items].map((i) => i.webkitGetAsEntry()).filter((e) => e !== null);
  const found = await Promise.all(entries.map((entry) => walk(entry)));
  return found.flat();
}

async function walk(entry: FileSystemEntry): Promise<Named[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: Named[] = [];
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return found;
    for (const child of part) found.push(...(await walk(child)));
  }
}

function chosen(input: HTMLInputElement): void {
  const files = [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  input.value = "";
  void send(files);
}

/** The whole first screen of an empty project, or a dialog. */
export function ImportBox({ onClose }: { onClose?: () => void }) {
  const box = <ImportForm {...(onClose ? { onClose } : {})} />;
  return onClose ? (
    <Dialog title="Add images" onClose={onClose}>
      {box}
    </Dialog>
  ) : (
    <div class="welcome">
      <h2>Mark a few, adapt, look, correct</h2>
      <ol>
        <li>Add a folder of ultrasound images or cine loops.</li>
        <li>Mark four lesions of each class, and label four images as normal.</li>
        <li>Press Adapt. A few seconds later you see maps and grades on all other images.</li>
      </ol>
      {box}
      <p class="muted">Images stay on this machine. Nothing is sent anywhere else.</p>
    </div>
  );
}

function ImportForm({ onClose }: { onClose?: () => void }) {
  const path = useSignal("");
  async function byPath(event: Event): Promise<void> {
    event.preventDefault();
    const done = await attempt(async () => {
      importing.value = await api.importFolder(path.value.trim(), useMarks.value);
    });
    if (done) onClose?.();
  }
  return (
    <div class="import">
      <div class="drop">
        <Icon name="images" />
        <p>Drop a folder or files here: PNG, JPEG, BMP, TIFF, DICOM</p>
        <p class="buttons">
          <label class="button">
            Choose a folder
            <input
              type="file"
              class="hidden"
              multiple
              {...{ webkitdirectory: true }}
              onChange={(e) => {
                chosen(e.currentTarget);
                onClose?.();
              }}
            />
          </label>
          <label class="button">
            Choose files
            <input
              type="file"
              class="hidden"
              multiple
              onChange={(e) => {
                chosen(e.currentTarget);
                onClose?.();
              }}
            />
          </label>
        </p>
      </div>
      <form onSubmit={(e) => void byPath(e)}>
        <label>
          Or a folder of this machine; its files stay where they are
          <input
            type="text"
            value={path.value}
            placeholder="/data/scans"
            spellcheck={false}
            onInput={(e) => (path.value = e.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={!path.value.trim()}>
          Open
        </button>
      </form>
      <label class="check">
        <input type="checkbox" checked={useMarks.value} onChange={(e) => (useMarks.value = e.currentTarget.checked)} />
        Use classes and masks that come with the images
      </label>
    </div>
  );
}

/** Progress of what is being added, and what could not be. */
export function ImportLine() {
  const up = sending.value;
  const now = importing.value;
  return (
    <>
      {up && (
        <p class="progress-line">
          <progress max={up.of} value={up.sent} aria-label="Files sent" /> {up.sent} of {plural(up.of, "file")} sent
        </p>
      )}
      {now?.state === "running" && (
        <p class="progress-line">
          <progress max={Math.max(1, now.found)} value={now.done} aria-label="Images read" /> reading {now.title}: {now.done}{" "}
          of {plural(now.found, "image")}
        </p>
      )}
      {now?.state === "failed" && <Note kind="error">{now.error}</Note>}
      {now?.state === "done" && (now.failed > 0 || now.notes.length > 0) && (
        <details class="notes">
          <summary>
            {plural(now.done, "image")} added from {now.title}
            {now.failed > 0 && `, ${now.failed} cannot be read`}
            {now.notes.length > 0 && `, ${plural(now.notes.length, "note")}`}
          </summary>
          <ul>
            {now.notes.map((note) => (
              <li key={note}>{note}</li>
            ))}
          </ul>
          <button type="button" class="plain" onClick={() => (importing.value = null)}>
            Close
          </button>
        </details>
      )}
      {refused.value.length > 0 && (
        <details class="notes">
          <summary>{plural(refused.value.length, "file")} refused</summary>
          <ul>
            {refused.value.map((r) => (
              <li key={r.name}>
                {r.name}: {r.reason}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}
