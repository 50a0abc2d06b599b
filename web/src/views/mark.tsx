/** Mark: one image, its tools, its marks; the way to the next one. */

import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Stage } from "../canvas/stage";
import * as editor from "../state/editor";
import * as list from "../state/list";
import { say } from "../state/live";
import { mapsVersion } from "../state/news";
import { nameOf, onScreen, queue, refreshQueue, project } from "../state/project";
import { address, replace, route } from "../state/route";
import { reviewing, suggested, walk } from "../state/walk";
import { shortName } from "../text";
import { Icon } from "../ui/icons";
import { offer } from "../ui/keyboard";
import { Small, Tool } from "../ui/parts";
import { actions } from "./mark_actions";
import { Cine, Tools } from "./mark_tools";
import { Side } from "./mark_side";
import { HeardCard, SpeakButton, useVoice } from "./mark_voice";

async function open(rest: readonly string[]): Promise<void> {
  const [id, frame] = rest;
  if (id) {
    await list.fetchItem(id);
    await editor.show(id, Number(frame ?? 0) || 0);
    if (list.total.value === null) await list.reload(list.lastPlace.value);
    const place = list.placeOf(id);
    if (place >= 0) list.remember(place);
    return;
  }
  const item = (await list.ensure(list.lastPlace.value)) ?? (await list.ensure(0));
  if (item) replace("mark", item.id, item.best);
}

export function Mark() {
  useVoice();
  useEffect(() => {
    const stop = effect(() => {
      const { view, rest } = route.value;
      if (view === "mark") void open(rest).catch((error: unknown) => say(String(error)));
    });
    const close = offer("mark", actions());
    const closePen = offer("cursor", actions());
    if (!queue.value) void refreshQueue().catch(() => undefined); // asked again when it is looked at
    return () => {
      stop();
      close();
      closePen();
      editor.pen.value = null;
      editor.drop();
    };
  }, []);
  const now = editor.shownFrame.value;
  if (project.value?.images === 0) {
    return (
      <p class="empty">
        No image yet. <a href={address("images")}>Add images</a> first.
      </p>
    );
  }
  const d = editor.detail.value;
  return (
    <div class="mark">
      <Strip />
      <div class="bench">
        <Head />
        <div class="canvas-box">
          <Tools />
          <div class="stage-box">
            <Stage maps={mapsVersion.value} />
            {d?.failed && <p class="why">{d.failed}</p>}
            <Tags />
            <HeardCard />
          </div>
        </div>
        {d && d.frames > 1 && now && <Cine />}
      </div>
      <Side />
    </div>
  );
}

function Head() {
  void list.arrived.value;
  const now = editor.shownFrame.value;
  const d = editor.detail.value;
  const place = now ? list.placeOf(now.image) : -1;
  const total = list.total.value ?? 0;
  const reason = queue.value?.items.find((q) => q.image === now?.image)?.reason;
  return (
    <header class="mark-head">
      <Tool icon="left" label="Previous image" action="previous" disabled={place === 0} onClick={() => void walk(-1)} />
      <div class="title">
        <h1>{d ? shortName(d.name) : "Image"}</h1>
        <span class="muted">
          {place >= 0 && `${place + 1} of ${total}`}
          {d?.patient && ` · patient ${d.patient}`}
          {d?.device && ` · ${d.device}`}
        </span>
      </div>
      {reviewing() && <span class="chip static">Review: Enter agrees, Backspace goes back</span>}
      {reason && (
        <span class="chip static" title={reason}>
          {reason}
        </span>
      )}
      <SpeakButton />
      <button type="button" class="plain" onClick={() => void suggested()}>
        <Icon name="next" /> Suggested
      </button>
      <Tool
        icon="right"
        label="Next image"
        action="next"
        disabled={place >= 0 && place + 1 >= total}
        onClick={() => void walk(1)}
      />
    </header>
  );
}

/** What the picture does not say: which model the map is from, how lengths are known. */
function Tags() {
  const d = editor.detail.value;
  const current = project.value?.model ?? null;
  const from = editor.mapModel.value;
  if (!d) return null;
  return (
    <div class="tags">
      {from !== null && from !== current && <span class="badge from">map from {nameOf(from)}</span>}
      {editor.pen.value && <span class="badge">keyboard pen: arrows move, Space draws, Enter ends, K leaves</span>}
      <span class="badge">{d.spacing_mm ? `mm from ${d.spacing_source ?? "the file"}` : "no pixel spacing: sizes in pixels"}</span>
    </div>
  );
}

function Strip() {
  void list.arrived.value;
  const now = editor.shownFrame.value;
  const known = now ? list.placeOf(now.image) : -1;
  const place = known >= 0 ? known : list.lastPlace.value;
  const first = Math.max(0, place - 3);
  const last = Math.min(list.total.value ?? 0, first + 14);
  useEffect(() => {
    if (last > first) list.need(first, last);
    const others = list.places(first, last).filter((p) => p.image !== now?.image);
    onScreen.value = now ? [now, ...others] : others;
  }, [list.arrived.value, first, last, now?.image, now?.frame]);
  const shown = [];
  for (let i = first; i < last; i++) {
    const item = list.at(i)?.value;
    if (!item) continue;
    shown.push(
      <li key={item.id}>
        <a
          href={address("mark", item.id, item.best)}
          aria-label={`${i + 1}: ${shortName(item.name)}${item.label ? `, ${item.label}` : ""}`}
          {...(item.id === now?.image ? { "aria-current": "true" as const } : {})}
        >
          <Small id={item.id} frame={item.best} />
          {item.label && <span class="marked" aria-hidden="true" />}
        </a>
      </li>,
    );
  }
  return (
    <nav class="strip" aria-label="Images around this one">
      <ol>{shown}</ol>
    </nav>
  );
}
