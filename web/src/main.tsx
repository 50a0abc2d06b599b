/** Starts the page: session, project, events, keys. */

import "./styles/base.css";
import "./styles/shell.css";
import "./styles/parts.css";
import "./styles/grid.css";
import "./styles/mark.css";
import "./styles/views.css";
import { signal } from "@preact/signals";
import { render } from "preact";
import { startKeyboard } from "./ui/keyboard";
import { Shell } from "./ui/shell";
import { logIn, start } from "./state/news";

const state = signal<"starting" | "locked" | "ready" | { failed: string }>("starting");

function App() {
  const now = state.value;
  if (now === "ready") return <Shell />;
  return (
    <main class="door">
      <h1>ultraad</h1>
      {now === "starting" && <p>Opening the project…</p>}
      {now === "locked" && (
        <>
          <p>This page needs the address that <code>ultraad serve</code> printed in the terminal. It works once.</p>
          <p class="muted">Was the server started again? Then it printed a new one. Marks that wait in this browser are kept.</p>
        </>
      )}
      {typeof now === "object" && (
        <>
          <p role="alert">{now.failed}</p>
          <button type="button" onClick={() => void boot()}>
            Try again
          </button>
        </>
      )}
      <p class="muted">Research use only. Not a medical device.</p>
    </main>
  );
}

async function boot(): Promise<void> {
  state.value = "starting";
  try {
    if (await logIn()) {
      await start();
      startKeyboard();
      state.value = "ready";
    } else state.value = "locked";
  } catch (error) {
    state.value = { failed: error instanceof Error ? error.message : String(error) };
  }
}

render(<App />, document.getElementById("app")!);
void boot();
