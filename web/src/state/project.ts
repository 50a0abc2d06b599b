/** The project, its job and its models; what the server tells by itself is heard here. */

import { batch, computed, signal } from "@preact/signals";
import * as api from "../api";
import type { Changes, Import, Job, JobState, ModelInfo, Project, Queue } from "../types";
import { attempt, complain, say } from "./live";
import { line } from "./outbox";

export const project = signal<Project | null>(null);
export const job = signal<Job | null>(null);
export const models = signal<readonly ModelInfo[]>([]);
export const changed = signal<Changes | null>(null); // of the current model against the one before
export const fresh = signal<number | null>(null); // the model that was just adapted, until that was noticed
export const queue = signal<Queue | null>(null);
export const importing = signal<Import | null>(null);

/** Frames on the screen, most important first: they are predicted first. */
export const onScreen = signal<readonly { image: string; frame: number }[]>([]);

export const classes = computed(() => project.value?.classes ?? []);
export const normal = computed(() => classes.value.find((c) => c.normal)?.name ?? "normal");
export const lesionClasses = computed(() => classes.value.filter((c) => !c.normal).map((c) => c.name));
export const current = computed(() => models.value.find((m) => m.current) ?? null);

/** "model 3", "starting model". */
export const nameOf = (model: number): string => models.value.find((m) => m.number === model)?.name ?? `model ${model}`;

export const ENDED: ReadonlySet<JobState> = new Set<JobState>(["done", "failed", "cancelled"]);
export const busy = computed(() => (job.value && !ENDED.has(job.value.state) ? job.value : null));
export const adapting = computed(() => (busy.value?.kind === "adapt" ? busy.value : null));

/** Why Adapt cannot be pressed, in words; empty if it can. */
export const hindrance = computed(() => {
  if (line.value === "away") return "the server does not answer";
  if (!project.value) return "the project is being opened";
  if (adapting.value) return "a model is being adapted";
  if (busy.value && busy.value.kind !== "predict") return `wait: ${busy.value.text}`;
  return project.value.adapt.ready ? "" : project.value.adapt.reason;
});

export async function refreshProject(): Promise<void> {
  const told = await api.project();
  batch(() => {
    project.value = told;
    job.value ??= told.job;
  });
}

export async function refreshModels(): Promise<void> {
  models.value = await api.models();
  const now = current.value;
  changed.value = now && models.value.length > 1 ? await api.changes(now.number) : null;
}

export async function refreshQueue(): Promise<void> {
  queue.value = await api.queue();
}

export interface AdaptChoice {
  method?: string;
  backbone?: string;
  options?: Record<string, unknown>;
  use_held_out?: boolean;
}

export const choice = signal<AdaptChoice>({});

export async function adapt(): Promise<void> {
  if (hindrance.value) {
    say(`Adapt is not possible: ${hindrance.value}`);
    return;
  }
  await attempt(async () => {
    job.value = await api.startJob({ kind: "adapt", ...choice.value, visible: onScreen.value.slice(0, 200) });
    say("Adapting");
  });
}

export async function cancel(): Promise<void> {
  const running = busy.value;
  if (running) await attempt(async () => (job.value = await api.cancelJob(running.number)));
}

export async function goTo(model: number): Promise<void> {
  await attempt(async () => {
    await api.applyModel(model);
    await refreshModels();
    say(`${nameOf(model)} is in use`);
  });
}

/** Puts a job's news into words, once per state. */
export function hearJob(news: Job): void {
  const before = job.value;
  job.value = news;
  if (before?.number === news.number && before.state === news.state) return;
  if (news.kind === "adapt") fresh.value = news.state === "done" ? news.model : null;
  if (news.state === "failed") complain(new Error(news.error ?? `${news.kind} failed`));
  else if (news.kind === "adapt" || news.kind === "export") say(words(news));
}

export function words(news: Job): string {
  if (news.state === "done") {
    if (news.kind === "adapt") return `${nameOf(news.model ?? 0)} is ready`;
    return { predict: "all images are predicted", export: "the export is ready", check: "the data is checked" }[news.kind];
  }
  if (news.state === "cancelled") return `${news.kind} was cancelled`;
  if (news.state === "failed") return news.error ?? `${news.kind} failed`;
  return news.text;
}
