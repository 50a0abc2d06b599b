/** Images: all images of the project as a grid, sorted, filtered and searched. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as list from "../state/list";
import { say } from "../state/live";
import { label } from "../state/marks";
import { tile } from "../state/prefs";
import { classes, importing, onScreen, project } from "../state/project";
import { plural } from "../text";
import { VirtualGrid } from "../ui/grid";
import { Icon } from "../ui/icons";
import { ImportBox, ImportLine } from "../ui/import";
import { offer } from "../ui/keyboard";
import { Pick } from "../ui/parts";
import { LiveTile } from "../ui/tile";

const SORTS = [
  ["added asc", "as added"],
  ["name asc", "name"],
  ["score desc", "score, highest first"],
  ["score asc", "score, lowest first"],
  ["uncertainty desc", "most unsure first"],
  ["disagreement desc", "disagreement first"],
  ["class asc", "class"],
  ["patient asc", "patient"],
  ["marked desc", "marked last"],
] as const;

const STATES = [
  ["", "all"],
  ["unmarked", "not marked"],
  ["marked", "marked"],
  ["support", "used to adapt"],
  ["held_out", "kept out"],
  ["flipped", "decision changed"],
  ["missed", "missed by the model"],
  ["review", "to review"],
  ["failed", "cannot be read"],
] as const;

export function Browse() {
  const adding = useSignal(false);
  const total = list.total.value;
  useEffect(() => {
    void list.adopt("images");
    return offer(
      "grid",
      Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [`tile${n}`, () => labelTile(n - 1)])),
    );
  }, []);
  const empty = project.value !== null && project.value.images === 0;
  return (
    <div class="browse">
      <h1 class="hidden">Images</h1>
      {!empty && <Filters onAdd={() => (adding.value = true)} />}
      <ImportLine />
      {empty ? (
        <ImportBox />
      ) : (
        <>
          {total === 0 && !importing.value && <p class="empty">No image fits this search. Clear the filters to see all.</p>}
          <VirtualGrid
            total={total ?? 0}
            label={`${plural(total ?? 0, "image")}`}
            wanted={tile.value}
            foot={46}
            start={list.lastPlace.value}
            keyOf={list.idAt}
            draw={(i, tabIndex) => <LiveTile id={list.idAt(i)} of={list.at(i)} tabIndex={tabIndex} />}
            onRange={list.need}
            onSight={(first, last) => (onScreen.value = list.places(first, last))}
            version={list.arrived.value}
          />
        </>
      )}
      {adding.value && <ImportBox onClose={() => (adding.value = false)} />}
    </div>
  );
}

/** A class key on a tile labels the whole image. */
function labelTile(n: number): void {
  const index = document.activeElement?.closest("[data-index]")?.getAttribute("data-index");
  const item = index === null || index === undefined ? null : list.at(Number(index))?.value;
  const cls = classes.value[n];
  if (!item) say("Choose a tile first: arrow keys move, a class key labels the image");
  else if (cls) label(item.id, item.best, cls.name);
}

function Filters({ onAdd }: { onAdd: () => void }) {
  const q = list.query.value;
  const text = useSignal(q.search);
  useEffect(() => {
    if (text.value === list.query.value.search) return;
    const wait = setTimeout(() => list.setQuery({ search: text.value }), 200);
    return () => clearTimeout(wait);
  }, [text.value]);
  const total = list.total.value;
  const filtered = q.search || q.class || q.state || q.patient || q.device;
  return (
    <div class="filters" role="search">
      <label class="search">
        <span class="hidden">Search name, patient, device, class</span>
        <input
          type="search"
          placeholder="Search"
          title="Name, patient, device or class"
          value={text.value}
          onInput={(e) => (text.value = e.currentTarget.value)}
        />
      </label>
      <Pick label="Show" value={q.state} options={STATES} onPick={(state) => list.setQuery({ state })} />
      <Pick
        label="Class"
        value={q.class}
        options={[["", "any"], ...classes.value.map((c) => [c.name, c.name] as const)]}
        onPick={(cls) => list.setQuery({ class: cls })}
      />
      <Pick
        label="Sort"
        value={`${q.sort} ${q.order}`}
        options={SORTS}
        onPick={(both) => {
          const [sort, order] = both.split(" ") as [string, "asc" | "desc"];
          list.setQuery({ sort, order });
        }}
      />
      <label class="pick size">
        <span>Size</span>
        <input
          type="range"
          min={120}
          max={480}
          step={20}
          value={tile.value}
          onInput={(e) => (tile.value = Number(e.currentTarget.value))}
        />
      </label>
      <span class="count" aria-live="polite">
        {total === null ? "loading" : plural(total, "image")}
      </span>
      {q.patient && (
        <button type="button" class="chip" onClick={() => list.setQuery({ patient: "" })}>
          patient {q.patient} <Icon name="close" />
        </button>
      )}
      {q.device && (
        <button type="button" class="chip" onClick={() => list.setQuery({ device: "" })}>
          {q.device} <Icon name="close" />
        </button>
      )}
      {filtered && (
        <button
          type="button"
          class="plain"
          onClick={() => {
            text.value = "";
            list.setQuery({ search: "", class: "", state: "", patient: "", device: "" });
          }}
        >
          Clear
        </button>
      )}
      {list.stale.value && q.sort !== "added" && q.sort !== "name" && (
        <button type="button" class="plain" onClick={() => list.reload()}>
          Sort again
        </button>
      )}
      <button type="button" class="add" onClick={onAdd}>
        <Icon name="plus" /> Add images
      </button>
    </div>
  );
}
