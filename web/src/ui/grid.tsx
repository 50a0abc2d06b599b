/** A grid of tiles of any number, of which only those near the visible part exist. */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { layOut, move, range } from "../core/grid";
import { textUnit } from "../unit";

interface Props {
  total: number;
  label: string;
  wanted: number; // width of a tile at the smallest text
  foot: number; // height below the picture, likewise
  start?: number; // index to show first
  draw: (index: number, tabIndex: number) => ComponentChildren;
  keyOf: (index: number) => string;
  onRange: (first: number, last: number, ahead: boolean) => void; // what is drawn; ahead: what is in sight is there
  onSight: (first: number, last: number) => void; // what is in sight
  version: number; // changes when more tiles can be drawn
}

const GAP = 10;
const AHEAD = 1.5;

export function VirtualGrid({ total, label, wanted, foot, start = 0, draw, keyOf, onRange, onSight, version }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [top, setTop] = useState(0);
  const [at, setAt] = useState(start);
  const [spare, setSpare] = useState(0); // screens above and below that are drawn ahead, once the visible one is
  const moved = useRef(false);
  const placed = useRef(false);

  useLayoutEffect(() => {
    const element = box.current!;
    const watch = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize({ width, height });
    });
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  const unit = textUnit() * Math.min(1.6, Math.max(1, size.width / 1900)); // tiles grow with the text and the screen
  const most = size.width < 560 ? Math.floor((size.width - GAP) / 2) : wanted; // two columns on a phone
  const grid = layOut(total, size.width, Math.min(wanted * unit, most), GAP, foot * textUnit());
  const [first, last] = size.height ? range(grid, total, top, size.height, spare) : [0, 0];
  const [seen, unseen] = size.height ? range(grid, total, top, size.height, 0) : [0, 0];

  useLayoutEffect(() => {
    if (placed.current || !size.height || !total) return;
    placed.current = true;
    const row = Math.floor(start / grid.columns) * grid.row;
    if (start && row + grid.row > size.height) box.current!.scrollTop = row - size.height / 3;
  }, [size.height, total]);

  useEffect(() => {
    if (last > first) onRange(first, last, spare > 0);
  }, [first, last, total]);

  useEffect(() => {
    if (unseen > seen) onSight(seen, unseen);
  }, [seen, unseen, total, version]);

  useEffect(() => {
    if (spare || !total) return;
    const look = setInterval(() => {
      const tiles = [...(box.current?.querySelectorAll("li") ?? [])];
      const drawn = (tile: Element) => tile.querySelector(".waiting") === null && (tile.querySelector("img")?.complete ?? true);
      if (tiles.length && tiles.every(drawn)) setSpare(AHEAD);
    }, 100);
    return () => clearInterval(look);
  }, [spare, total]);

  /** After a jump only what is in sight is asked for, so that it does not wait for the rest. */
  function scrolled(to: number): void {
    if (Math.abs(to - top) > AHEAD * size.height) setSpare(0);
    setTop(to);
  }

  useEffect(() => {
    const tile = moved.current ? box.current!.querySelector<HTMLElement>(`[data-index="${at}"] a`) : null;
    if (!tile) return; // its page may still be on the way
    moved.current = false;
    tile.focus({ preventScroll: true });
  });

  function keys(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    if (target.tagName === "INPUT" || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = move(grid, total, at, event.key, size.height);
    if (to === at) return;
    event.preventDefault();
    const element = box.current!;
    const y = Math.floor(to / grid.columns) * grid.row;
    if (y < element.scrollTop) element.scrollTop = y;
    else if (y + grid.row > element.scrollTop + size.height) element.scrollTop = y + grid.row - size.height;
    moved.current = true;
    setAt(to);
  }

  function focused(event: FocusEvent): void {
    const index = (event.target as HTMLElement).closest("[data-index]")?.getAttribute("data-index");
    if (index !== null && index !== undefined) setAt(Number(index));
  }

  const tiles = [];
  const tabAt = at >= first && at < last ? at : first;
  for (let i = first; i < last; i++) {
    const x = (i % grid.columns) * (grid.tile + GAP);
    const y = Math.floor(i / grid.columns) * grid.row;
    const place = { width: `${grid.tile}px`, height: `${grid.row - GAP}px`, transform: `translate(${x}px, ${y}px)` };
    tiles.push(
      <li key={keyOf(i)} data-index={i} aria-setsize={total} aria-posinset={i + 1} style={place}>
        {draw(i, i === tabAt ? 0 : -1)}
      </li>,
    );
  }
  return (
    <div class="grid" ref={box} onScroll={(e) => scrolled(e.currentTarget.scrollTop)} onKeyDown={keys} onFocusIn={focused}>
      <ul aria-label={label} style={{ height: `${grid.height}px` }}>
        {tiles}
      </ul>
    </div>
  );
}
