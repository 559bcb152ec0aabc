// One player for all films of an item. The frame that is shown is one number; all films show it, or wait until all can.

const PATIENCE = 20000; // milliseconds until a film that does not load is reported

export class Player {
  /** shown(frame) is called whenever another frame is shown, stopped() when playing ends. */
  constructor(shown, stopped) {
    this.shown = shown;
    this.stopped = stopped;
    this.films = [];
    this.frame = 0;
    this.timer = null;
  }

  /** Take films (video elements with their source set), how many frames they have, and their rate. Resolves when all can be shown. */
  async open(films, frames, fps) {
    this.pause();
    Object.assign(this, { films, frames, fps, frame: 0 });
    await Promise.all(films.map(loaded));
    if (this.films === films) this.show(0);
  }

  /** Show a frame in all films. */
  show(frame) {
    this.frame = Math.min(Math.max(frame, 0), this.frames - 1);
    // The middle of a frame: its edges belong to two.
    for (const film of this.films) film.currentTime = (this.frame + 0.5) / this.fps;
    this.shown(this.frame);
  }

  get playing() {
    return this.timer !== null;
  }

  play() {
    if (this.playing || !this.films.length) return;
    if (this.frame >= this.frames - 1) this.show(0);
    let due = performance.now() + 1000 / this.fps;
    const tick = () => {
      this.timer = requestAnimationFrame(tick);
      // Films are moved by frames and never run by themselves: so they cannot part, and none shows a frame that another has not reached.
      if (performance.now() < due || this.films.some((film) => film.seeking)) return;
      due = Math.max(due + 1000 / this.fps, performance.now());
      this.show(this.frame + 1);
      if (this.frame >= this.frames - 1) this.pause();
    };
    this.timer = requestAnimationFrame(tick);
  }

  pause() {
    if (!this.playing) return;
    cancelAnimationFrame(this.timer);
    this.timer = null;
    this.stopped();
  }
}

function loaded(film) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("A video does not load. Check the connection and reload the page.")), PATIENCE);
    const settle = (how, value) => { clearTimeout(late); how(value); };
    if (film.readyState >= HTMLMediaElement.HAVE_ENOUGH_DATA) return settle(resolve);
    film.addEventListener("canplaythrough", () => settle(resolve), { once: true });
    film.addEventListener("error", () => settle(reject, new Error("A video cannot be shown. Reload the page.")), { once: true });
    film.load();
  });
}
