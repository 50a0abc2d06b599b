/** Arithmetic of a grid of equal tiles of which only those near the visible part exist. */

export interface Grid {
  readonly columns: number;
  readonly tile: number; // width of a tile
  readonly row: number; // height of a row, gap included
  readonly height: number; // of the whole grid
}

export function layOut(total: number, width: number, wanted: number, gap: number, foot: number): Grid {
  const columns = Math.max(1, Math.floor((width + gap) / (wanted + gap)));
  const tile = Math.floor((width - gap * (columns - 1)) / columns);
  const row = Math.round(tile * 0.75 + foot) + gap;
  return { columns, tile, row, height: Math.max(0, Math.ceil(total / columns) * row - gap) };
}

/** First and last + 1 index of the tiles to draw: those in sight and `spare` screens above and below. */
export function range(grid: Grid, total: number, top: number, screen: number, spare: number): [number, number] {
  const first = Math.floor(Math.max(0, top - spare * screen) / grid.row) * grid.columns;
  const last = Math.ceil((top + (1 + spare) * screen) / grid.row) * grid.columns;
  return [Math.min(first, total), Math.max(0, Math.min(last, total))];
}

/** The tile that an arrow key leads to. */
export function move(grid: Grid, total: number, at: number, key: string, screen: number): number {
  const page = Math.max(1, Math.floor(screen / grid.row)) * grid.columns;
  const to = {
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    ArrowUp: at - grid.columns,
    ArrowDown: at + grid.columns,
    PageUp: at - page,
    PageDown: at + page,
    Home: 0,
    End: total - 1,
  }[key];
  if (to === undefined) return at;
  if ((key === "ArrowUp" || key === "ArrowDown") && (to < 0 || to >= total)) return at;
  return Math.min(total - 1, Math.max(0, to));
}
