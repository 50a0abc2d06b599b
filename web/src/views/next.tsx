/** Mark this next: images worth marking, each with its reason. */

import { useEffect } from "preact/hooks";
import { thumbnail } from "../api";
import { attempt, say } from "../state/live";
import { add } from "../state/marks";
import { onScreen, project, queue, refreshQueue } from "../state/project";
import { address } from "../state/route";
import { flush } from "../state/outbox";
import { review } from "../state/walk";
import { capital, shortName } from "../text";
import type { QueueItem } from "../types";
import { Icon } from "../ui/icons";
import { Note } from "../ui/parts";

export function Next() {
  useEffect(() => void attempt(refreshQueue), []);
  const q = queue.value;
  useEffect(() => {
    if (q) onScreen.value = q.items.map(({ image, frame }) => ({ image, frame }));
  }, [q]);
  return (
    <div class="page next">
      <h1>Mark this next</h1>
      {q?.message && <Note kind="info">{capital(q.message)}</Note>}
      {q && !q.items.length && !q.message && <p class="empty">Nothing to suggest: every image is marked.</p>}
      <ul class="cards">
        {q?.items.map((item) => (
          <Card key={`${item.image}/${item.frame}`} item={item} />
        ))}
      </ul>
      <section class="section review" aria-label="Review">
        <h2>Review</h2>
        <p>
          Images where marks and model disagree, or with a suggestion that nobody has looked at, the largest disagreement
          first. Enter agrees, Backspace goes back: one pass with the keyboard.
        </p>
        <button type="button" onClick={() => void attempt(review)} disabled={project.value?.model == null}>
          <Icon name="check" /> Start the review
        </button>
      </section>
    </div>
  );
}

async function pass(item: QueueItem): Promise<void> {
  add(item.image, item.frame, { kind: "skip" });
  say(`skipped ${shortName(item.name)}`);
  await flush();
  await refreshQueue();
}

function Card({ item }: { item: QueueItem }) {
  return (
    <li class="card">
      <a href={address("mark", item.image, item.frame)} aria-label={`Mark ${shortName(item.name)}: ${item.reason}`}>
        <img src={thumbnail(item.image, item.frame, 512)} alt="" decoding="async" />
      </a>
      <div class="card-foot">
        <p>
          <strong>{capital(item.reason)}</strong>
          <small>{shortName(item.name)}</small>
        </p>
        <p class="buttons">
          <a class="button" href={address("mark", item.image, item.frame)}>
            <Icon name="mark" /> Mark
          </a>
          <button type="button" onClick={() => void attempt(() => pass(item))} aria-label={`Skip ${shortName(item.name)}`}>
            Skip
          </button>
        </p>
      </div>
    </li>
  );
}
