/** Two models side by side on the same images. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { attempt } from "../state/live";
import { mapsVersion } from "../state/news";
import { models, nameOf } from "../state/project";
import { address } from "../state/route";
import { plural, shortName } from "../text";
import type { Item } from "../types";
import { Bars, Pick } from "../ui/parts";
import { Tile } from "../ui/tile";

const PAGE = 24;

export function Compare() {
  const numbers = models.value.map((m) => m.number);
  const left = useSignal<number | null>(null);
  const right = useSignal<number | null>(null);
  const from = useSignal(0);
  const pairs = useSignal<readonly (readonly [Item, Item])[]>([]);
  const total = useSignal(0);
  const a = left.value ?? numbers[1] ?? null;
  const b = right.value ?? numbers[0] ?? null;
  useEffect(() => {
    if (a === null || b === null || a === b) return;
    void attempt(async () => {
      const answer = await api.images({ sort: "uncertainty", order: "desc" }, from.value, PAGE);
      const ids = answer.items.map((i) => i.id);
      const [one, two] = await Promise.all([api.imagesById(ids, a), api.imagesById(ids, b)]);
      total.value = answer.total;
      const [byA, byB] = [one, two].map((part) => new Map(part.items.map((i) => [i.id, i] as const)));
      pairs.value = ids.flatMap((id) => {
        const [x, y] = [byA!.get(id), byB!.get(id)];
        return x && y ? [[x, y] as const] : []; // removed meanwhile
      });
    });
  }, [a, b, from.value, mapsVersion.value]);
  if (numbers.length < 2) {
    return (
      <p class="empty">
        Two models are needed. <a href={address("adapt")}>Adapt</a> again after a correction.
      </p>
    );
  }
  const names = models.value.map((m) => [String(m.number), m.name] as const);
  return (
    <div class="page compare">
      <div class="filters">
        <Pick label="Left" value={String(a)} options={names} onPick={(v) => (left.value = Number(v))} />
        <Pick label="Right" value={String(b)} options={names} onPick={(v) => (right.value = Number(v))} />
        <span class="count">
          {total.value > PAGE && `${from.value + 1} to ${Math.min(total.value, from.value + PAGE)} of `}
          {plural(total.value, "image")}, most unsure first
        </span>
        {total.value > PAGE && (
          <>
            <button type="button" disabled={from.value === 0} onClick={() => (from.value -= PAGE)}>
              Previous {PAGE}
            </button>
            <button type="button" disabled={from.value + PAGE >= total.value} onClick={() => (from.value += PAGE)}>
              Next {PAGE}
            </button>
          </>
        )}
      </div>
      {a === b && <p class="empty">Choose two different models.</p>}
      <ul class="pairs">
        {a !== b && pairs.value.map(([one, two]) => <Pair key={one.id} one={one} two={two} a={a!} b={b!} />)}
      </ul>
    </div>
  );
}

function Pair({ one, two, a, b }: { one: Item; two: Item; a: number; b: number }) {
  const flipped = one.pred && two.pred && one.pred.abnormal !== two.pred.abnormal;
  return (
    <li class={flipped ? "pair flipped" : "pair"}>
      <p>
        {shortName(one.name)}
        {one.label && ` · marked ${one.label}`}
        {flipped && <strong> · the decision differs</strong>}
      </p>
      <div class="two">
        <Half item={one} model={a} />
        <Half item={two} model={b} />
      </div>
    </li>
  );
}

function Half({ item, model }: { item: Item; model: number }) {
  const threshold = models.value.find((m) => m.number === model)?.pixel_threshold ?? null;
  return (
    <div class="half">
      <Tile id={item.id} item={item} overlay={{ threshold, model, version: mapsVersion.value }} />
      {item.pred ? <Bars pred={item.pred} /> : <p class="muted">{nameOf(model)} has no result here</p>}
    </div>
  );
}
