/** The keys, shown by "?", and changed there. */

import { useSignal } from "@preact/signals";
import { ACTIONS, chord, keysOf, rebind, type Action, type Place } from "../core/keys";
import { bindings, singleKeys } from "../state/prefs";
import { classes } from "../state/project";
import { capital } from "../text";
import { Dialog, sign, Switch } from "./parts";

const PLACES: readonly (readonly [Place, string])[] = [
  ["any", "Everywhere"],
  ["mark", "Mark"],
  ["cursor", "Keyboard pen (K)"],
  ["grid", "Images"],
];

export function Help({ onClose }: { onClose: () => void }) {
  const changing = useSignal<string | null>(null);
  const told = useSignal("");
  const most = classes.value.length;

  function press(event: KeyboardEvent): void {
    const id = changing.value;
    if (id === null) return;
    event.preventDefault();
    event.stopPropagation();
    const keys = chord(event);
    if (keys === null) return;
    changing.value = null;
    if (keys === "Escape" && id !== "cancel") return;
    const result = rebind(bindings.value, id, [keys]);
    if ("taken" in result) told.value = `${keys} means "${result.taken.words}" already. Change that one first.`;
    else {
      bindings.value = result.own;
      told.value = `${keys} is kept.`;
    }
  }

  const shown = (a: Action) => {
    const n = Number(/\d$/.exec(a.id)?.[0] ?? 0);
    return n <= most;
  };
  const words = (a: Action) => {
    const n = Number(/^(?:class|label|tile)(\d)$/.exec(a.id)?.[1] ?? 0);
    const name = classes.value[n - 1]?.name;
    if (!name) return a.words;
    return a.id.startsWith("class") && !classes.value[n - 1]!.normal ? `next mark: ${name}` : `whole image: ${name}`;
  };
  return (
    <Dialog title="Keys" onClose={onClose} wide>
      <div onKeyDownCapture={press}>
        <Switch label="Single keys work (off: only Ctrl, arrows and Enter)" on={singleKeys.value} set={(on) => (singleKeys.value = on)} />
        <p role="status" class="muted">
          {told.value || "Press a key name to change it. Wheel or two fingers zoom, Space and drag moves the image, the right button sets level and window."}
        </p>
        <div class="key-columns">
          {PLACES.map(([place, title]) => (
            <section key={place}>
              <h3>{title}</h3>
              <dl>
                {place === "grid" && (
                  <div>
                    <dt>Arrows, Page up and down, Home, End</dt>
                    <dd>move between tiles</dd>
                  </div>
                )}
                {ACTIONS.filter((a) => a.place === place && shown(a)).map((a) => (
                  <div key={a.id}>
                    <dt>
                      <button
                        type="button"
                        class="plain key"
                        onClick={() => (changing.value = a.id)}
                      >
                        {changing.value === a.id ? (
                          <em>press a key</em>
                        ) : (
                          keysOf(a, bindings.value).map((k) => (
                            <kbd key={k} aria-hidden="true">
                              {sign(k)}
                            </kbd>
                          ))
                        )}
                        <span class="hidden">
                          Key for {words(a)}: {keysOf(a, bindings.value).join(" or ")}. Change
                        </span>
                      </button>
                    </dt>
                    <dd>{capital(words(a))}</dd>
                  </div>
                ))}
              </dl>
            </section>
          ))}
        </div>
        <p class="buttons">
          <button type="button" onClick={() => (bindings.value = {})} disabled={!Object.keys(bindings.value).length}>
            First keys again
          </button>
        </p>
      </div>
    </Dialog>
  );
}
