/** Icons on a 24 grid, drawn for this page. They are decoration: the words are beside them or in the label. */

const PATHS = {
  images: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  mark: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  next: "M5 12h12M13 7l5 5-5 5M21 5v14",
  adapt: "M12 3v4M12 17v4M3 12h4M17 12h4M6 6l2.5 2.5M15.5 15.5 18 18M6 18l2.5-2.5M15.5 8.5 18 6M12 9.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5",
  look: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12M12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6",
  take: "M12 4v11M7 10.5l5 5 5-5M4 20h16",
  brush: "M7 14c-2 0-3 1.5-3 3 0 1.5-1 2-1.5 2.5C4 20.5 6 21 8 20s2.5-2.5 2-4L20 5.5a1.8 1.8 0 0 0-2.5-2.5L8.5 13.5",
  eraser: "M9 20H21M5 14.5 14.5 5a2 2 0 0 1 2.8 0l2.2 2.2a2 2 0 0 1 0 2.8L10 19.5H7.5L5 17.3a2 2 0 0 1 0-2.8M10 9.5l5 5",
  polygon: "M5 9l7-5 7 6-3 9H7zM5 9h.01M12 4h.01M19 10h.01M16 19h.01M7 19h.01",
  box: "M4 6h16v12H4z",
  scribble: "M4 15c3-9 6-9 5-3s1 6 4 0 4-5 3 0 1 4 4 1",
  select: "M6 3l12 9-6 1 3.5 6-2.3 1.3L9.8 14 6 18z",
  undo: "M8 5 4 9l4 4M4 9h9a6 6 0 0 1 0 12H8",
  redo: "M16 5l4 4-4 4M20 9h-9a6 6 0 0 0 0 12h5",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  plus: "M12 5v14M5 12h14",
  larger: "M12 5a7 7 0 1 1 0 14 7 7 0 0 1 0-14",
  smaller: "M12 9.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5",
  zoomIn: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M15.5 15.5 21 21M10.5 7.5v6M7.5 10.5h6",
  zoomOut: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M15.5 15.5 21 21M7.5 10.5h6",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  play: "M7 4.5v15l13-7.5z",
  stop: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  copy: "M8 8h12v12H8zM16 8V4H4v12h4",
  help: "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 2.3M12 18h.01",
  gear: "M4 7h10M18 7h2M4 17h2M10 17h10M14 7a2 2 0 1 0 4 0 2 2 0 1 0-4 0M6 17a2 2 0 1 0 4 0 2 2 0 1 0-4 0",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
  close: "M6 6l12 12M18 6 6 18",
  bin: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  check: "M5 12.5l4.5 4.5L19 7",
  warn: "M12 4 2.5 20h19zM12 10v4.5M12 17.5h.01",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.5h4M4 14.5h4M16 9.5h4M16 14.5h4",
  people: "M9 5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7M2.5 20c0-4 3-6 6.5-6s6.5 2 6.5 6M16 5.5a3 3 0 0 1 0 6M18 14.5c2 .8 3.5 2.5 3.5 5.5",
  voice: "M12 3.5a2.5 2.5 0 0 1 2.5 2.5v5a2.5 2.5 0 0 1-5 0V6A2.5 2.5 0 0 1 12 3.5M6 11a6 6 0 0 0 12 0M12 17v4M9 21h6",
  skip: "M5 5l9 7-9 7zM18 5v14",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
