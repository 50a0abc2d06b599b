/** Hears what the server tells and brings everything else up to date. */

import { batch, signal } from "@preact/signals";
import * as api from "../api";
import * as editor from "./editor";
import * as list from "./list";
import { attempt, complain, say } from "./live";
import { catchUp, details, follow, receive } from "./marks";
import { flush, line, start as startOutbox } from "./outbox";
import { forgetAllMaps, forgetMaps } from "./pixels";
import { busy, ENDED, hearJob, importing, job, project, refreshModels, refreshProject, refreshQueue } from "./project";

export const mapsVersion = signal(0); // counts new maps of images that were loaded
export const modelsVersion = signal(0);

let row = 0;
let greeted = false; // the stream has been open before
let source: EventSource | null = null;
let again: ReturnType<typeof setTimeout> | undefined;

/** Logs in with the code of the address, if there is one. False if a new address is needed. */
export async function logIn(): Promise<boolean> {
  const code = /^#code=(.+)$/.exec(location.hash)?.[1];
  if (code) history.replaceState(null, "", "#images");
  try {
    await (code ? api.logIn(code) : api.session());
    return true;
  } catch (error) {
    if (error instanceof api.ApiError && [401, 403, 422].includes(error.status)) return false;
    throw error;
  }
}

export async function start(): Promise<void> {
  await Promise.all([refreshProject(), refreshModels()]);
  row = project.value?.row ?? 0;
  await startOutbox(project.value?.id ?? "", (frames, rater) => {
    receive(frames, rater);
    follow(frames.map((f) => f.image));
  });
  listen();
}

function listen(): void {
  source?.close();
  source = api.listen(
    {
      hello: (news) => {
        line.value = "on";
        if (news.job) job.value = news.job;
        else if (busy.value) job.value = null; // it ended while nobody listened
        if (greeted || news.row > row) void attempt(afterBreak);
        greeted = true;
        void flush();
      },
      marks: (news) => {
        row = Math.max(row, news.row);
        void catchUp(news.frames).catch(complain);
        follow(news.frames.map((f) => f.image));
      },
      job: (news) => {
        hearJob(news);
        if (ENDED.has(news.state)) void attempt(() => Promise.all([refreshProject(), refreshModels()]));
      },
      predictions: (news) => predicted(news.images),
      model: (news) => {
        if (news.why === "chosen") forgetAllMaps();
        void attempt(modelChanged);
      },
      import: (news) => {
        importing.value = news;
        if (news.state === "done") say(`${news.done} images added from ${news.title}`);
      },
      images: (news) => {
        for (const id of news.changed ?? []) if (details.get(id)?.value) void renew(id).catch(complain);
        relist();
      },
      project: () => void attempt(refreshProject),
      queue: () => void attempt(refreshQueue),
    },
    () => {
      line.value = line.value === "locked" ? "locked" : "away";
      if (source?.readyState === EventSource.CLOSED) void reconnect();
    },
  );
}

/** The browser gives up on a refused stream: ask why, and try again unless a new address is needed. */
async function reconnect(): Promise<void> {
  clearTimeout(again);
  try {
    await api.session();
    listen();
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) line.value = "locked";
    else again = setTimeout(() => void reconnect(), 2000);
  }
}

async function afterBreak(): Promise<void> {
  const news = await api.marksAfter(row);
  row = news.row;
  await catchUp(news.frames);
  follow(news.frames.map((f) => f.image));
  await Promise.all([refreshProject(), refreshModels()]);
}

const due = new Set<string>();
let soon: ReturnType<typeof setTimeout> | undefined;

function predicted(ids: readonly string[]): void {
  for (const id of ids) due.add(id);
  soon ??= setTimeout(() => {
    soon = undefined;
    const now = [...due];
    due.clear();
    forgetMaps(now);
    void attempt(async () => {
      await list.refresh(now);
      batch(() => {
        mapsVersion.value++;
        const shown = editor.shownFrame.value;
        if (shown && now.includes(shown.image)) void renew(shown.image).catch(complain);
      });
    });
  }, 150);
}

/** Scores and suggestions of the image shown, from the new model. */
async function renew(image: string): Promise<void> {
  const told = await api.image(image);
  const known = details.get(image);
  if (known) known.value = told;
  if (editor.shownFrame.value?.image === image) await editor.refreshOffers();
}

async function modelChanged(): Promise<void> {
  list.outdate();
  await Promise.all([refreshModels(), refreshProject(), refreshQueue()]);
  batch(() => {
    mapsVersion.value++;
    modelsVersion.value++;
  });
  const shown = editor.shownFrame.value;
  if (shown) await renew(shown.image);
}

let relisting: ReturnType<typeof setTimeout> | undefined;

/** Images were added or removed: the list is read again, twice a second at most. */
function relist(): void {
  relisting ??= setTimeout(() => {
    relisting = undefined;
    void attempt(async () => {
      await refreshProject();
      await list.reload(list.lastPlace.value);
    });
  }, 500);
}
