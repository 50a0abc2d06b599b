/** Words and numbers. */

export const plural = (n: number, one: string, many = `${one}s`): string => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

export const percent = (v: number): string => `${Math.round(100 * v)} %`;

export function bytes(n: number): string {
  if (n < 1e6) return `${Math.max(1, Math.round(n / 1e3))} KB`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}

export function seconds(s: number): string {
  return s < 60 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

export const when = (t: string): string =>
  new Date(t).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** "scans/a.png" to "a.png". */
export const shortName = (name: string): string => name.slice(name.lastIndexOf("/") + 1);

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
