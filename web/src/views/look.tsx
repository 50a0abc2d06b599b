/** Look: results as a grid, at a threshold; two models side by side; by patient and device; what to beware of. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as list from "../state/list";
import { mapsVersion } from "../state/news";
import { models, onScreen } from "../state/project";
import { address, route } from "../state/route";
import { VirtualGrid } from "../ui/grid";
import { OpacitySlider, Pick, Slider } from "../ui/parts";
import { LiveTile } from "../ui/tile";
import { Beware } from "./look_check";
import { Compare } from "./look_compare";
import { Groups } from "./look_groups";
import { chosen, Thresholds } from "./look_threshold";

const TABS = [
  ["results", "Results"],
  ["compare", "Two models"],
  ["patient", "Patients"],
  ["device", "Devices"],
  ["warnings", "Warnings"],
] as const;

export function Look() {
  const tab = route.value.rest[0] ?? "results";
  return (
    <div class="look">
      <h1 class="hidden">Look</h1>
      <nav class="tabs" aria-label="Ways to look">
        {TABS.map(([name, words]) => (
          <a key={name} href={address("look", name)} {...(tab === name ? { "aria-current": "page" as const } : {})}>
            {words}
          </a>
        ))}
      </nav>
      {tab === "results" && <Results />}
      {tab === "compare" && <Compare />}
      {(tab === "patient" || tab === "device") && <Groups by={tab} key={tab} />}
      {tab === "warnings" && <Beware />}
    </div>
  );
}

const ORDERS = [
  ["score desc", "score, highest first"],
  ["score asc", "score, lowest first"],
  ["uncertainty desc", "most unsure first"],
  ["disagreement desc", "disagreement first"],
  ["patient asc", "patient"],
  ["added asc", "as added"],
] as const;

function Results() {
  const size = useSignal(260);
  const q = list.query.value;
  const total = list.total.value;
  useEffect(() => {
    void list.adopt("look", { sort: "score", order: "desc" });
  }, []);
  if (!models.value.length) {
    return (
      <p class="empty">
        No model yet. <a href={address("adapt")}>Adapt</a> one, and the results are shown here.
      </p>
    );
  }
  const { image, pixel } = chosen.value;
  return (
    <div class="look-results">
      <div class="look-side">
        <Thresholds />
        <OpacitySlider />
        <Slider label="Tile size" min={160} max={640} step={20} value={size.value} text={`${size.value} px`} onInput={(v) => (size.value = v)} />
        <Pick
          label="Sort"
          value={`${q.sort} ${q.order}`}
          options={ORDERS}
          onPick={(both) => {
            const [sort, order] = both.split(" ") as [string, "asc" | "desc"];
            void list.setQuery({ sort, order });
          }}
        />
        <Pick
          label="Show"
          value={q.state}
          options={[
            ["", "all"],
            ["unmarked", "not marked"],
            ["flipped", "decision changed"],
            ["missed", "missed by the model"],
            ["held_out", "kept out"],
          ]}
          onPick={(state) => void list.setQuery({ state })}
        />
      </div>
      <VirtualGrid
        total={total ?? 0}
        label="Results"
        wanted={size.value}
        foot={46}
        keyOf={list.idAt}
        draw={(i, tabIndex) => {
          const overlay = { threshold: pixel, version: mapsVersion.value };
          return <LiveTile id={list.idAt(i)} of={list.at(i)} tabIndex={tabIndex} overlay={overlay} decide={image} />;
        }}
        onRange={list.need}
        onSight={(first, last) => (onScreen.value = list.places(first, last))}
        version={list.arrived.value}
      />
    </div>
  );
}
