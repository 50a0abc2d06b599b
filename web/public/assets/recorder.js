/* Runs beside the page's own thread: passes on the sound of the microphone while it is told to, and nothing else. */
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.take = 0; // the number of the recording; 0 while none is made
    this.port.onmessage = ({ data }) => {
      if (this.take) this.port.postMessage([this.take, null]); // the end: everything before it has been passed on
      this.take = data;
    };
  }

  process([input]) {
    if (this.take && input[0]) this.port.postMessage([this.take, input[0].slice()]);
    return true;
  }
}

registerProcessor("recorder", Recorder);
