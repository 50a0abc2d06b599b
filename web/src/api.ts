/** Every request of the page. Nothing else calls fetch or EventSource. */

import type * as T from "./types";

export class ApiError extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** The server did not answer at all: strokes wait, views keep what they show. */
export class Offline extends Error {
  constructor() {
    super("The server does not answer. Is 'ultraad serve' still running?");
  }
}

async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, headers: {} };
  if (signal) init.signal = signal;
  if (body instanceof FormData || body instanceof Blob) init.body = body;
  else if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(`/api${path}`, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Offline();
  }
  if (answer.ok) return answer;
  let kind = "internal";
  let message = `The server answered ${answer.status}.`;
  try {
    const told = (await answer.json()) as { error?: { kind?: string; message?: string } };
    kind = told.error?.kind ?? kind;
    message = told.error?.message ?? message;
  } catch {
    // no JSON: the number has to do
  }
  throw new ApiError(kind, message, answer.status);
}

async function json<A>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<A> {
  const answer = await ask(method, path, body, signal);
  return (answer.status === 204 ? undefined : await answer.json()) as A;
}

function search(values: object): string {
  const kept = Object.entries(values).filter(([, v]) => v !== undefined && v !== null && v !== "");
  return kept.length ? `?${new URLSearchParams(kept.map(([k, v]) => [k, String(v)]))}` : "";
}

const frame = (image: string, f: number) => `/images/${image}/frames/${f}`;

export const session = () => ask("GET", "/session");
export const logIn = (code: string) => ask("POST", "/session", { code });
export const invite = () => json<{ address: string }>("POST", "/session/invite");

export const project = () => json<T.Project>("GET", "/project");
export const changeProject = (change: object) => json<T.Project>("PATCH", "/project", change);
export const deleteProject = (confirm: string) => ask("DELETE", "/project", { confirm });

export const importFolder = (path: string, use_marks: boolean) =>
  json<T.Import>("POST", "/imports", { path, use_marks });
export const importBatch = (batch: string, use_marks: boolean) =>
  json<T.Import>("POST", "/imports", { batch, use_marks });
export const imports = () => json<T.Import[]>("GET", "/imports");
export const upload = (batch: string, files: FormData) =>
  json<{ received: number; refused: { name: string; reason: string }[] }>("POST", `/uploads?batch=${batch}`, files);

export const images = (query: Partial<T.Query>, offset: number, limit: number, signal?: AbortSignal) =>
  json<T.Items>("GET", `/images${search({ ...query, offset, limit, with_order: true })}`, undefined, signal);
export const imagesById = (ids: string[], model?: number) =>
  json<T.Items>("GET", `/images${search({ ids: ids.join(","), model, limit: ids.length })}`);
export const image = (id: string) => json<T.Detail>("GET", `/images/${id}`);
export const removeImage = (id: string) => ask("DELETE", `/images/${id}`);
export const groups = (by: string) => json<T.Group[]>("GET", `/groups?by=${by}`);

export const thumbnail = (id: string, f: number, size = 256) => `/api/images/${id}/thumbnail?frame=${f}&size=${size}`;

export async function pixels(id: string, f: number, longest: number): Promise<ImageBitmap> {
  const answer = await ask("GET", `${frame(id, f)}?longest=${longest}`);
  return createImageBitmap(await answer.blob());
}

/** Null where this frame has no map: the method draws none, or it is not predicted yet. */
export async function heatMap(id: string, f: number, model?: number): Promise<T.HeatMap | null> {
  let answer: Response;
  try {
    answer = await ask("GET", `${frame(id, f)}/map${search({ model })}`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
  const size = (name: string) => Number(answer.headers.get(name));
  return {
    width: size("X-Width"),
    height: size("X-Height"),
    model: size("X-Model"),
    values: new Uint16Array(await answer.arrayBuffer()), // little-endian, as every machine with a browser
  };
}

export const marks = (id: string, f: number, rater: string) =>
  json<T.FrameMarks>("GET", `${frame(id, f)}/marks${search({ rater })}`);
export const save = (rater: string, rows: T.Row[]) => json<T.Saved>("POST", "/marks", { rater, rows });
export const marksAfter = (row: number) =>
  json<{ row: number; frames: { image: string; frame: number }[] }>("GET", `/marks?after=${row}`);
export const preview = (stroke: object) => json<T.Preview>("POST", "/preview", stroke);
export const suggestions = (id: string, f: number, threshold?: number) =>
  json<T.Suggestions>("GET", `${frame(id, f)}/suggestions${search({ threshold })}`);

export interface NearImage {
  image: string | null;
  frame: number;
  label: string;
  similarity: number;
  share: number | null;
  score: number | null;
}

export interface Reasons {
  state: "waiting" | "done" | "failed";
  model: number;
  error: string;
  on_marks: boolean | null;
  lines: string[];
  support: NearImage[];
  sentences: { label: string; text: string; share: number | null }[];
}

export const why = (id: string, f: number) => json<Reasons>("POST", `${frame(id, f)}/why`);

export const methods = () => json<T.MethodInfo[]>("GET", "/methods");
export const backbones = () => json<{ name: string; about: string }[]>("GET", "/backbones");
export const startJob = (job: object) => json<T.Job>("POST", "/jobs", job);
export const cancelJob = (n: number) => json<T.Job>("POST", `/jobs/${n}/cancel`);

export const models = () => json<T.ModelInfo[]>("GET", "/models");
export const applyModel = (n: number) => json<T.ModelInfo>("POST", `/models/${n}/use`);
export const changeModel = (n: number, change: object) => json<T.ModelInfo>("PATCH", `/models/${n}`, change);
export const changes = (n: number) => json<T.Changes>("GET", `/models/${n}/changes`);
export const numbers = (n: number) => json<T.Numbers>("GET", `/models/${n}/numbers`);

export const queue = (limit = 12) => json<T.Queue>("GET", `/queue?limit=${limit}`);
export const check = () => json<T.Check>("GET", "/check");

export const voice = () => json<T.VoiceInfo>("GET", "/voice");
export const setSaid = (name: string, said: string | null) => json<T.VoiceInfo>("PATCH", "/voice", { name, said });
export const hear = (clip: Blob) => json<T.HeardWord>("POST", "/voice", clip);

export const exports = () => json<T.Export[]>("GET", "/exports");
export const archive = (n: number) => `/api/exports/${n}/archive`;
export const report = (n: number) => `/api/exports/${n}/report`;
export const removeExport = (n: number) => ask("DELETE", `/exports/${n}`);

export interface Events {
  hello: { row: number; model: number | null; job: T.Job | null; version: string; start: string };
  marks: { row: number; frames: { image: string; frame: number }[]; rater: string };
  job: T.Job;
  predictions: { model: number; images: string[] };
  model: { model: number; why: string };
  import: T.Import;
  images: { changed?: string[]; all?: boolean };
  project: object;
  queue: object;
}

/** Listens until closed. The browser reconnects by itself; `lost` is called each time the line breaks. */
export function listen(
  heard: { [E in keyof Events]: (data: Events[E]) => void },
  lost: () => void,
): EventSource {
  const source = new EventSource("/api/events");
  for (const name of Object.keys(heard) as (keyof Events)[]) {
    source.addEventListener(name, (event) => {
      heard[name](JSON.parse((event as MessageEvent<string>).data) as never);
    });
  }
  source.addEventListener("error", lost);
  return source;
}
