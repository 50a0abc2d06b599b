/** What is said to the user: the status line (a live region), and errors that stay until closed. */

import { signal } from "@preact/signals";
import { ApiError, Offline } from "../api";

export const status = signal("");
export const errors = signal<string[]>([]);

export function say(text: string): void {
  status.value = status.value === text ? `${text}\u00a0` : text; // a repeated text is read again
}

export function complain(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  if (error instanceof Offline) {
    say(error.message); // the line about the server says it already, and stays
    return;
  }
  const text = error instanceof Error ? error.message : String(error);
  if (!(error instanceof ApiError)) console.error(error);
  if (error instanceof ApiError && error.status === 401) return; // the page asks for the new address
  if (!errors.value.includes(text)) errors.value = [...errors.value, text];
}

export function dismiss(text: string): void {
  errors.value = errors.value.filter((e) => e !== text);
}

/** Runs something that asks the server; a failure is told to the user. */
export async function attempt(task: () => Promise<unknown>): Promise<boolean> {
  try {
    await task();
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}
