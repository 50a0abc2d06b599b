/** One image as a tile: picture, what is marked, what the model says. */

import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { thumbnail } from "../api";
import { contour } from "../core/outline";
import { complain } from "../state/live";
import { shownMap } from "../state/pixels";
import { opacity } from "../state/prefs";
import { current, nameOf, normal } from "../state/project";
import { address } from "../state/route";
import { plural, shortName } from "../text";
import type { Item } from "../types";
import { Icon } from "./icons";
import { ClassDot, ThinBar } from "./parts";

interface Props {
  id: string;
  item: Item | null; // null: on its way
  tabIndex?: number;
  overlay?: { threshold: number | null; model?: number; version: number };
  decide?: number | null; // image threshold to decide by, instead of the stored decision
}

/** A tile that follows its image's news. */
export function LiveTile({ of, ...rest }: Omit<Props, "item"> & { of: Signal<Item> | null }) {
  return <Tile item={of?.value ?? null} {...rest} />;
}

export function Tile({ id, item: it, tabIndex = 0, overlay, decide = null }: Props) {
  const frame = useSignal(it?.best ?? 0);
  const chosen = useSignal(false); // the scrubber was moved: the best frame no longer decides
  if (!it) {
    // The picture needs the id alone, so it does not wait for the rest; the same elements go on when that is there.
    return (
      <div class="tile waiting">
        <a href={address("mark", id)} tabIndex={tabIndex}>
          <span class="hidden">loading</span>
          <span class="picture" aria-hidden="true">
            <img src={thumbnail(id, 0)} alt="" decoding="async" draggable={false} />
          </span>
          <span class="foot" aria-hidden="true" />
        </a>
      </div>
    );
  }
  const f = chosen.value ? frame.value : it.best;
  const abnormal = it.pred && (decide === null ? it.pred.abnormal : it.pred.score >= decide);
  const old = it.pred && current.value && it.pred.model !== current.value.number ? it.pred.model : null;
  return (
    <div class={`tile${it.failed ? " failed" : ""}${it.pred?.out_of_scope ? " outside" : ""}`}>
      <a href={address("mark", it.id, f)} tabIndex={tabIndex}>
        <span class="hidden">{inWords(it)}</span>
        <span class="picture" aria-hidden="true">
          {it.failed ? (
            <span class="why">{it.failed}</span>
          ) : (
            <img src={thumbnail(it.id, f)} alt="" width={it.width} height={it.height} decoding="async" draggable={false} />
          )}
          {overlay && !it.failed && <MapLayer item={it} frame={f} {...overlay} />}
          <span class="badges">
            {it.label !== null && <ClassDot name={it.label} />}
            {it.pred?.out_of_scope && <span class="badge warn">out of scope</span>}
            {disagrees(it) && <span class="badge warn">model: {it.pred?.class}</span>}
            {it.role === "held_out" && <span class="badge">kept out</span>}
            {it.warnings.length > 0 && (
              <span class="badge warn" title={it.warnings.join("\n")}>
                <Icon name="warn" />
              </span>
            )}
            {it.frames > 1 && (
              <span class="badge">
                <Icon name="film" /> {it.frames}
              </span>
            )}
          </span>
          {old !== null && <span class="badge from">from {nameOf(old)}</span>}
        </span>
        <span class="foot" aria-hidden="true">
          <span class="name">{shortName(it.name)}</span>
          {it.pred && (
            <span class="verdict">
              <ClassDot name={abnormal ? lesionClass(it) : normal.value} hollow />
              <span class="number">{it.pred.score.toFixed(2)}</span>
            </span>
          )}
        </span>
        {it.pred && <ThinBar pred={it.pred} />}
      </a>
      {it.frames > 1 && !it.failed && (
        <input
          class="scrubber"
          type="range"
          min={0}
          max={it.frames - 1}
          value={f}
          tabIndex={tabIndex}
          aria-label={`Frame of ${shortName(it.name)}`}
          aria-valuetext={`frame ${f + 1} of ${it.frames}`}
          onInput={(e) => {
            chosen.value = true;
            frame.value = Number(e.currentTarget.value);
          }}
        />
      )}
    </div>
  );
}

/** Marked one way and predicted another. */
const disagrees = ({ label, pred }: Item) => label !== null && pred !== null && pred.class !== null && pred.class !== label;

/** The likeliest abnormal class, or null where the model does not grade. */
function lesionClass({ pred }: Item): string | null {
  if (!pred?.probs) return pred?.class ?? null;
  const rest = Object.entries(pred.probs).filter(([name]) => name !== normal.value);
  return rest.sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
}

export function inWords(it: Item): string {
  const parts = [shortName(it.name)];
  if (it.patient) parts.push(`patient ${it.patient}`);
  if (it.frames > 1) parts.push(plural(it.frames, "frame"));
  if (it.failed) parts.push(`cannot be read: ${it.failed}`);
  if (it.label) parts.push(`marked ${it.label}${it.lesions ? `, ${plural(it.lesions, "lesion")}` : ""}`);
  else if (it.lesions) parts.push(plural(it.lesions, "lesion"));
  else parts.push("not marked");
  if (it.pred) {
    parts.push(`${nameOf(it.pred.model)} says ${it.pred.class ?? (it.pred.abnormal ? "abnormal" : "normal")}`);
    parts.push(`score ${it.pred.score.toFixed(2)}`);
  }
  if (it.pred?.out_of_scope) parts.push("out of scope: unlike what the model can judge");
  if (it.role === "held_out") parts.push("kept out of the support");
  return [...parts, ...it.warnings].join(", ");
}

interface LayerProps {
  item: Item;
  frame: number;
  threshold: number | null;
  model?: number;
  version: number;
}

/** Map and outline at the threshold, over a thumbnail. */
function MapLayer({ item, frame, threshold, model, version }: LayerProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const alpha = opacity.value;
  const hasMap = item.pred?.has_map ?? false;
  useEffect(() => {
    if (!hasMap) return;
    let here = true;
    shownMap(item.id, frame, model)
      .then((shown) => {
        const element = canvas.current;
        if (!here || !shown || !element) return;
        const k = 320 / Math.max(item.width, item.height);
        const size = { width: Math.round(item.width * k), height: Math.round(item.height * k) };
        element.width = size.width;
        element.height = size.height;
        const c = element.getContext("2d")!;
        c.globalAlpha = alpha;
        c.drawImage(shown.image, 0, 0, size.width, size.height);
        c.globalAlpha = 1;
        if (threshold === null) return;
        const lines = contour(shown.map, size, threshold);
        c.beginPath();
        for (let i = 0; i < lines.length; i += 4) {
          c.moveTo(lines[i]!, lines[i + 1]!);
          c.lineTo(lines[i + 2]!, lines[i + 3]!);
        }
        c.strokeStyle = "#fff";
        c.lineWidth = 1.5;
        c.stroke();
      })
      .catch(complain);
    return () => {
      here = false;
    };
  }, [item.id, frame, threshold, model, version, hasMap, alpha, item.pred?.model]);
  return hasMap ? <canvas class="map" ref={canvas} aria-hidden="true" /> : null;
}
