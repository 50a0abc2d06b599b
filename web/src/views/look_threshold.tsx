/** The two thresholds, and what they cost on held-out marks. */

import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import { at, rate } from "../core/curve";
import { attempt, say } from "../state/live";
import { modelsVersion } from "../state/news";
import { current, refreshModels } from "../state/project";
import { capital, plural } from "../text";
import type { Interval, Numbers } from "../types";
import { Note, Section, Slider } from "../ui/parts";

const moved = signal<{ model: number; image?: number; pixel?: number } | null>(null);
const numbers = signal<Numbers | null>(null);

/** Thresholds as the sliders are now; the model's own until they are moved. */
export const chosen = computed(() => {
  const model = current.value;
  const own = moved.value && model && moved.value.model === model.number ? moved.value : null;
  return {
    image: own?.image ?? model?.image_threshold ?? null,
    pixel: own?.pixel ?? model?.pixel_threshold ?? null,
    changed: own !== null,
  };
});

export function Thresholds() {
  const model = current.value;
  useEffect(() => {
    if (model) void attempt(async () => (numbers.value = await api.numbers(model.number)));
  }, [model?.number, modelsVersion.value]);
  if (!model) return null;
  const { image, pixel, changed } = chosen.value;
  const n = numbers.value;
  const point = n && image !== null ? at(n.curve, image) : null;
  return (
    <Section title={`Thresholds of ${model.name}`}>
      {image !== null && (
        <Slider
          label="Call abnormal from this score on"
          min={0}
          max={1}
          step={0.01}
          value={image}
          text={image.toFixed(2)}
          onInput={(v) => (moved.value = { ...moved.value, model: model.number, image: v })}
        />
      )}
      {n && n.curve.length > 0 ? (
        <>
          <dl class="rates" aria-live="polite">
            <Rate name="Sensitivity" value={point?.sensitivity} />
            <Rate name="Specificity" value={point?.specificity} />
          </dl>
          {image !== null && <Curve numbers={n} threshold={image} />}
          <p class="muted">
            From {n.source}: {n.abnormal} abnormal, {n.normal} normal
            {n.patients !== null && `, ${plural(n.patients, "patient")}`}. Ranges are 95 % intervals.
          </p>
        </>
      ) : (
        <p class="muted">
          {n
            ? `${capital(n.text)}. Of the images that Next offers, one in five is kept out for numbers here.`
            : "The numbers are being worked out…"}
        </p>
      )}
      {n?.caution && <Note kind="warning">{capital(n.caution)}</Note>}
      {pixel !== null && (
        <Slider
          label="Outline lesions at this map value"
          min={0.02}
          max={0.98}
          step={0.01}
          value={pixel}
          text={pixel.toFixed(2)}
          onInput={(v) => (moved.value = { ...moved.value, model: model.number, pixel: v })}
        />
      )}
      <p class="muted">
        {{ you: "You set these thresholds.", "cross-validation": "Set by cross-validation on your examples.", fixed: "Usual values: nothing was there to fit them on." }[
          model.threshold_from
        ] ?? ""}
      </p>
      {changed && (
        <p class="buttons">
          <button
            type="button"
            class="primary"
            onClick={() =>
              void attempt(async () => {
                await api.changeModel(model.number, { image_threshold: image, pixel_threshold: pixel });
                moved.value = null;
                await refreshModels();
                say("the thresholds are kept in the model");
              })
            }
          >
            Keep in the model
          </button>
          <button type="button" onClick={() => (moved.value = null)}>
            Reset
          </button>
        </p>
      )}
    </Section>
  );
}

function Rate({ name, value }: { name: string; value: Interval | null | undefined }) {
  const [rateText, interval] = rate(value);
  return (
    <>
      <dt>{name}</dt>
      <dd>
        <strong>{rateText}</strong>
        <small>{interval}</small>
      </dd>
    </>
  );
}

/** Sensitivity and specificity over the threshold, with their intervals as bands. */
function Curve({ numbers, threshold }: { numbers: Numbers; threshold: number }) {
  const points = numbers.curve;
  const y = (v: number) => (100 - 100 * v).toFixed(1);
  const steps = (pick: (p: (typeof points)[number]) => number | undefined) => {
    const kept = points.map((p) => [p.threshold, pick(p)] as const).filter((p): p is [number, number] => p[1] !== undefined);
    return kept.flatMap(([t, v], i) => {
      const end = kept[i + 1]?.[0] ?? 1;
      return [`${(200 * Math.min(1, t)).toFixed(1)},${y(v)}`, `${(200 * Math.min(1, end)).toFixed(1)},${y(v)}`];
    });
  };
  const band = (key: "sensitivity" | "specificity") =>
    [...steps((p) => p[key]?.[2]), ...steps((p) => p[key]?.[1]).reverse()].join(" ");
  return (
    <figure class="curve">
      <svg viewBox="0 0 200 100" role="img" aria-label="Sensitivity and specificity over the threshold" preserveAspectRatio="none">
        <polygon class="band sens" points={band("sensitivity")} />
        <polygon class="band spec" points={band("specificity")} />
        <polyline class="sens" points={steps((p) => p.sensitivity?.[0]).join(" ")} />
        <polyline class="spec" points={steps((p) => p.specificity?.[0]).join(" ")} />
        <line class="here" x1={200 * threshold} x2={200 * threshold} y1="0" y2="100" />
      </svg>
      <figcaption>
        <span class="key sens" /> sensitivity <span class="key spec" /> specificity
      </figcaption>
    </figure>
  );
}
