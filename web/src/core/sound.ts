/** Samples of sound, and how long a key is held. Times are in milliseconds. */

export const RATE = 16000; // samples per second that the server takes
export const TAP = 300; // a shorter press is a tap, not a word
export const LONGEST = 4000; // of a clip
export const SHOWN = 6000; // a word that is not accepted by then is dropped

/** Parts of a recording as one. */
export function joined(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const whole = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Samples from -1 to 1 as signed 16 bit, little-endian on every machine. */
export function pcm(samples: Float32Array): ArrayBuffer {
  const bytes = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((v, i) => bytes.setInt16(i * 2, Math.round(Math.min(1, Math.max(-1, v)) * 32767), true));
  return bytes.buffer;
}
