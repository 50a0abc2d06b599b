/** Why the model in use says what it says of the frame shown. Only on demand: it takes about nine predictions. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import * as editor from "../state/editor";
import { complain } from "../state/live";
import { nameOf } from "../state/project";
import { address } from "../state/route";
import { capital } from "../text";
import { Note, Section, Small } from "../ui/parts";

const AGAIN = 1000; // ms between two questions

const percent = (share: number | null) =>
  share === null ? "" : `share ${share < 0 ? "-" : "+"}${Math.abs(100 * share).toFixed(1)} %`;

export function Why() {
  const now = editor.shownFrame.value;
  const pred = editor.pred.value;
  const asked = useSignal(false);
  const told = useSignal<api.Reasons | null>(null);
  useEffect(() => {
    asked.value = false;
    told.value = null;
  }, [now?.image, now?.frame, pred?.model]);
  useEffect(() => {
    if (!asked.value || !now) return;
    let timer = 0;
    let gone = false;
    const ask = async () => {
      try {
        const answer = await api.why(now.image, now.frame);
        if (gone) return;
        told.value = answer;
        if (answer.state === "waiting") timer = window.setTimeout(() => void ask(), AGAIN);
      } catch (error) {
        asked.value = false;
        complain(error);
      }
    };
    void ask();
    return () => {
      gone = true;
      window.clearTimeout(timer);
    };
  }, [asked.value, now?.image, now?.frame]);
  if (!pred || !now) return null;
  const why = told.value;
  return (
    <Section title="Why">
      {!asked.value && (
        <button type="button" onClick={() => (asked.value = true)}>
          Ask why
        </button>
      )}
      {asked.value && (!why || why.state === "waiting") && (
        <p class="muted" role="status">
          Looking at the image again, without marks and with small changes…
        </p>
      )}
      {why?.state === "failed" && <Note kind="error">{why.error}</Note>}
      {why?.state === "done" && (
        <>
          {why.model !== pred.model && <p class="muted">Of {capital(nameOf(why.model))}.</p>}
          {why.on_marks && <Note kind="warning">This score rests on marks.</Note>}
          {why.lines.map((line) => (
            <p class="muted" key={line}>
              {line}
            </p>
          ))}
          {why.support.length > 0 && <h3>Nearest support images</h3>}
          <ul class="rows">
            {why.support.map((s, i) => (
              <li key={i}>
                <Near near={s} />
              </li>
            ))}
          </ul>
          {why.sentences.length > 0 && <h3>Nearest sentences</h3>}
          <ul class="rows">
            {why.sentences.map((s) => (
              <li key={s.text}>
                <span class="row-main">
                  <span>
                    {s.label} {percent(s.share)}
                    <small>{s.text}</small>
                  </span>
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </Section>
  );
}

function Near({ near }: { near: api.NearImage }) {
  const facts = [percent(near.share), `similarity ${near.similarity.toFixed(2)}`].filter(Boolean).join(", ");
  const words = (
    <span>
      {near.label}
      <small>
        {facts}
        {near.score !== null && `; without it: score ${near.score.toFixed(2)}`}
      </small>
    </span>
  );
  if (near.image === null) return <span class="row-main">{words}</span>;
  return (
    <a class="row-main" href={address("mark", near.image, near.frame)}>
      <Small id={near.image} frame={near.frame} />
      {words}
    </a>
  );
}
