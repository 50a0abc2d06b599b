/** The requests of the review page. A decision counts when its answer is here: the server has it on the disk then. */

export type Corners = [number, number, number, number];
export type State = "open" | "confirmed" | "dropped";

export interface Box {
  number: number | null;
  corners: Corners;
  text: string;
  score: number | null;
  action: "blank" | "leave";
}

export interface File {
  file: string;
  where: string;
  whole: boolean;
  frames: number;
  sizes: [number, number][];
  boxes: Box[];
  state: State;
}

export interface Review {
  files: File[];
  failed: Record<string, string>;
  searched: number;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask(method: string, path: string, body?: unknown): Promise<Response> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(`/api${path}`, init);
  } catch {
    throw new Refused(0, "The command does not answer. Is it still running in the terminal?");
  }
  if (answer.ok) return answer;
  const told = (await answer.json().catch(() => ({}))) as { error?: { message?: string } };
  throw new Refused(answer.status, told.error?.message ?? `The server answered ${answer.status}.`);
}

export const logIn = (code: string) => ask("POST", "/session", { code });
export const review = async () => (await (await ask("GET", "/review")).json()) as Review;
export const confirmAll = () => ask("POST", "/confirm");
export const picture = (file: number, which: number) => `/api/review/${file}/pictures/${which}`;

let last: Promise<unknown> = Promise.resolve();

/** Save what was decided about a file; one after the other, in the order of the clicks. */
export function decide(number: number, boxes: Box[], state: State): Promise<File> {
  const next = last.then(async () => (await (await ask("POST", `/review/${number}`, { boxes, state })).json()) as File);
  last = next.catch(() => undefined);
  return next;
}
