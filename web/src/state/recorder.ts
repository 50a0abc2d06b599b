/** The microphone: it opens with the first word and closes a minute after the last. A recording is never kept. */

import { joined, pcm, RATE } from "../core/sound";

const REST = 60_000;

interface Line {
  stream: MediaStream;
  context: AudioContext;
  node: AudioWorkletNode;
}

let line: Promise<Line> | null = null;
let take = 0; // counts recordings
let closing: ReturnType<typeof setTimeout> | undefined;

/** Why there is no sound, in words. */
function reason(error: unknown): Error {
  const words: Record<string, string> = {
    NotAllowedError: "The browser may not use the microphone: allow it beside the address, then hold the key again",
    NotFoundError: "No microphone was found: connect one, then hold the key again",
    NotReadableError: "The microphone is in use by another program, or its driver fails",
  };
  const name = error instanceof DOMException ? error.name : "";
  return new Error(words[name] ?? `The microphone cannot be used: ${error instanceof Error ? error.message : name}`);
}

async function open(): Promise<Line> {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives the microphone only to a page on this machine: use the keys here");
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
    const context = new AudioContext();
    await context.audioWorklet.addModule("assets/recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { channelCount: 1, channelCountMode: "explicit" });
    context.createMediaStreamSource(stream).connect(node).connect(context.destination); // it plays nothing
    await context.resume();
    for (const track of stream.getTracks()) track.onended = close; // unplugged, or no longer allowed
    return { stream, context, node };
  } catch (error) {
    throw reason(error);
  }
}

let parts: Float32Array[] = [];
let ended: () => void = () => undefined;

/** Begins to record; done when the microphone is open. */
export async function begin(): Promise<void> {
  clearTimeout(closing);
  line ??= open();
  try {
    const { node } = await line;
    const mine = ++take;
    parts = [];
    node.port.onmessage = ({ data: [of, part] }: MessageEvent<[number, Float32Array | null]>) => {
      if (of !== mine) return;
      if (part) parts.push(part);
      else ended();
    };
    node.port.postMessage(mine);
  } catch (error) {
    line = null;
    throw error;
  }
}

/** Ends the recording and forgets it. */
export async function stop(): Promise<void> {
  clearTimeout(closing);
  closing = setTimeout(close, REST);
  take++;
  parts = [];
  (await line)?.node.port.postMessage(0);
}

/** Ends the recording: 16 kHz, one channel, signed 16 bit. */
export async function end(): Promise<ArrayBuffer> {
  clearTimeout(closing);
  closing = setTimeout(close, REST);
  if (!line) return new ArrayBuffer(0);
  const { node, context } = await line;
  await new Promise<void>((done) => {
    ended = done;
    node.port.postMessage(0);
    setTimeout(done, 500); // a context that was stopped answers nothing
  });
  const samples = joined(parts);
  parts = [];
  if (!samples.length) return new ArrayBuffer(0);
  const offline = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / context.sampleRate), RATE);
  const buffer = offline.createBuffer(1, samples.length, context.sampleRate);
  buffer.copyToChannel(samples, 0);
  const source = offline.createBufferSource();
  source.buffer = buffer;
  source.connect(offline.destination);
  source.start();
  return pcm((await offline.startRendering()).getChannelData(0));
}

/** Switches the microphone off. */
export function close(): void {
  clearTimeout(closing);
  const was = line;
  line = null;
  parts = [];
  void was?.then(({ stream, context }) => {
    for (const track of stream.getTracks()) track.stop();
    void context.close();
  }, () => undefined);
}
