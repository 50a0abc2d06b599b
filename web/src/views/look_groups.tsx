/** Results by patient or device. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import * as list from "../state/list";
import { attempt } from "../state/live";
import { modelsVersion } from "../state/news";
import { go } from "../state/route";
import type { Group } from "../types";

type Column = "name" | "images" | "marked" | "abnormal" | "mean_score" | "wrong";

export function Groups({ by }: { by: "patient" | "device" }) {
  const groups = useSignal<readonly Group[] | null>(null);
  const sort = useSignal<Column>("mean_score");
  useEffect(() => void attempt(async () => (groups.value = await api.groups(by))), [by, modelsVersion.value]);
  if (groups.value === null) return <p class="empty">Loading</p>;
  const known = groups.value.some((g) => g.name !== null);
  if (!known) return <p class="empty">No image of this project names its {by}.</p>;
  const key = sort.value;
  const rows = [...groups.value].sort((a, b) =>
    key === "name" ? (a.name ?? "~").localeCompare(b.name ?? "~", "en", { numeric: true }) : (b[key] ?? -1) - (a[key] ?? -1),
  );
  const head = (column: Column, words: string) => (
    <th scope="col" aria-sort={key === column ? (column === "name" ? "ascending" : "descending") : "none"}>
      <button type="button" class="plain" onClick={() => (sort.value = column)}>
        {words}
      </button>
    </th>
  );
  return (
    <div class="page">
      <table>
        <caption class="hidden">Results by {by}</caption>
        <thead>
          <tr>
            {head("name", by === "patient" ? "Patient" : "Device")}
            {head("images", "Images")}
            {head("marked", "Marked")}
            {head("abnormal", "Called abnormal")}
            {head("mean_score", "Mean score")}
            {head("wrong", "Wrong on marked")}
          </tr>
        </thead>
        <tbody>
          {rows.map((g) => (
            <tr key={g.name ?? ""}>
              <th scope="row">
                {g.name === null ? (
                  "not named"
                ) : (
                  <button
                    type="button"
                    class="plain"
                    onClick={() => {
                      void list.adopt("images").then(() => list.setQuery({ ...list.FIRST, [by]: g.name! }));
                      go("images");
                    }}
                  >
                    {g.name}
                  </button>
                )}
              </th>
              <td>{g.images}</td>
              <td>{g.marked}</td>
              <td>{g.abnormal}</td>
              <td>
                {g.mean_score === null ? (
                  "–"
                ) : (
                  <span class="cell-bar">
                    <span aria-hidden="true" style={{ width: `${60 * g.mean_score}px` }} /> {g.mean_score.toFixed(2)}
                  </span>
                )}
              </td>
              <td>{g.wrong}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
