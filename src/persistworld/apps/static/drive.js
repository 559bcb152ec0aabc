// The driving page. One websocket, one drive. A request covers one chunk of frames; while a chunk plays, the next is asked for with the
// keys that are held then, as late as the models' speed allows.

import { byId, call, make, socket } from "./base.js";

const ARROWS = {
  ArrowUp: "f", ArrowDown: "b", ArrowLeft: "l", ArrowRight: "r", PageUp: "u", PageDown: "d", " ": ".",
};
const KEYS = "lrfbudqeoc.";
const WRITING = "input[type=text], input[type=number]"; // where keys write instead of driving
const TURN_FOR_STEP = 5; // rad of a turn for each metre of a step
const DEGREES = 180 / Math.PI;
const ENLARGED = 480; // pixels: about the width to which a view is drawn, by a whole factor
const TOGETHER = 40; // ms: fingers that press several keys at once are not faster
const DEAD = 0.15; // of a gamepad's sticks

const about = await call("about").catch((error) => fail(error.message));
const models = Object.keys(about.models);
const canvases = build();
const cutting = make("canvas", { width: about.width, height: about.height }).getContext("2d", { alpha: false });

const held = new Set(); // keys that are down
const tapped = new Set(); // keys that went down since the last request
const queue = []; // letters of a sequence, one chunk each
let busy = false; // a request is on its way
let waiting = []; // frames that were received and not shown yet: [image, row of the first model]
let due = 0; // when the next frame is shown, ms
let timer = 0; // of the next request
let asked = 0; // when the last chunk was asked for, ms
let delay = 0; // from asking for a chunk to its picture, ms, smoothed; 0: not known yet
let started = null;

const line = socket("drive");
line.onopen = () => start(null);
line.onclose = () => fail("The connection is closed. Load the page again to drive on.");
let expected = null; // what the picture that comes next belongs to
line.onmessage = async ({ data }) => {
  if (typeof data !== "string") {
    const belongs = expected; // the next answer may come while the picture is decoded
    return show(await createImageBitmap(new Blob([data], { type: "image/png" })), belongs);
  }
  const answer = JSON.parse(data);
  if (answer.error) {
    busy = false;
    queue.length = 0;
    byId("episode").value = started?.episode ?? "";
    return answer.fatal ? fail(answer.error) : warn(answer.error);
  }
  byId("trouble").hidden = true;
  if (answer.saved) return saved(answer.saved);
  expected = answer.started ?? answer.moved;
  if (answer.started) begin(answer.started);
  report(expected);
};

function ask(message) {
  busy = true;
  asked = performance.now();
  byId("state").textContent = message.do === "go" ? "driving" : "working";
  line.send(JSON.stringify(message));
}

function start(episode) {
  clearTimeout(timer);
  queue.length = 0;
  tapped.clear();
  ask({ do: "start", episode, noise: 0 });
}

function begin(found) {
  started = found;
  byId("episode").value = found.episode;
  byId("instruction").textContent = found.instruction ? `“${found.instruction}”` : "no instruction";
  document.title = `Drive · episode ${found.episode}`;
  byId("saved").hidden = true;
  byId("saved").replaceChildren();
}

function report(found) {
  const [x, y, z, , , yaw] = found.pose;
  byId("pose").textContent = `x ${x.toFixed(3)}  y ${y.toFixed(3)}  z ${z.toFixed(3)} m  turn ${Math.round(yaw * DEGREES)}°`;
  models.forEach((model) => { byId(`gripper-${model}`).textContent = `gripper ${found.grippers[model].toFixed(2)}`; });
  byId("edge").hidden = !found.edge;
  byId("edge").textContent = `edge of the known workspace: ${[...found.edge].join(", ")}`;
  const frames = found.chunks * about.frames;
  byId("length").textContent = frames ? `${frames} new frames, ${(frames / about.fps).toFixed(1)} s` : "The recorded first frame; no key pressed yet.";
  for (const name of ["undo", "save-film", "save-episode"]) byId(name).disabled = !found.chunks;
}

// Playing -----------------------------------------------------------------------------------------------------------

/** Take a picture apart into frames and play them; ask for the next chunk in time. */
function show(image, { frames, seconds }) {
  for (let frame = 0; frame < frames; frame += 1) waiting.push([image, frame * models.length]);
  busy = false;
  const now = performance.now();
  if (seconds) measured(now - asked);
  due = Math.max(due, now);
  requestAnimationFrame(play);
  const left = (waiting.length * period()) + (due - now);
  clearTimeout(timer);
  timer = setTimeout(next, Math.max(0, left - 1.25 * delay - 30));
}

/** Show how long a chunk takes from the request to its picture, and the frames a second that this allows. */
function measured(took) {
  delay = delay ? 0.7 * delay + 0.3 * took : took;
  const rate = 1000 * about.frames / delay;
  byId("speed").textContent = `${(delay / 1000).toFixed(2)} s a key, ${rate.toFixed(rate < 10 ? 1 : 0)} frames/s`;
  byId("speed").classList.toggle("warn", rate < about.fps);
}

function period() {
  return byId("fast").checked ? 0 : 1000 / about.fps;
}

function play(now) {
  if (!waiting.length) return;
  if (now >= due) {
    const [image, row] = waiting.shift();
    draw(image, row);
    due = Math.max(due + period(), now - period());
  }
  if (waiting.length) requestAnimationFrame(play);
}

function draw(image, row) {
  const { width, height } = about;
  const alone = cutting.canvas;
  canvases.forEach((views, model) => views.forEach((context, view) => {
    // Cut first, then enlarge: smoothing would mix in the neighbours' edges.
    cutting.drawImage(image, view * width, (row + model) * height, width, height, 0, 0, width, height);
    context.drawImage(alone, 0, 0, context.canvas.width, context.canvas.height);
  }));
}

/** Ask for the next chunk, if a key, a sequence, a gamepad or "keep running" wants one. */
function next() {
  if (busy || !started) return;
  const step = byId("step").value / 100;
  const order = { do: "go", step, angle: TURN_FOR_STEP * step };
  const stick = gamepad();
  if (queue.length) {
    ask({ ...order, keys: queue.shift() });
  } else if (held.size || tapped.size) {
    ask({ ...order, keys: [...new Set([...held, ...tapped])].join("") });
  } else if (stick) {
    ask({ ...order, push: stick });
  } else if (byId("run").checked) {
    ask({ ...order, keys: "." });
  } else {
    byId("state").textContent = "idle";
    return;
  }
  tapped.clear();
}

// Keys, buttons, gamepad --------------------------------------------------------------------------------------------

function press(key) {
  held.add(key);
  tapped.add(key);
  mark(key, true);
  if (busy || waiting.length) return;
  clearTimeout(timer);
  timer = setTimeout(next, TOGETHER);
}

function release(key) {
  held.delete(key);
  mark(key, false);
}

function mark(key, down) {
  document.querySelector(`[data-key="${key}"]`)?.classList.toggle("held", down);
}

function keyOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches(WRITING)) return null;
  if (event.key === " " && event.target.matches("input[type=checkbox]")) return null; // it ticks the box
  const key = ARROWS[event.key] ?? event.key.toLowerCase();
  return key.length === 1 && KEYS.includes(key) ? key : null;
}

addEventListener("keydown", (event) => {
  const key = keyOf(event);
  if (key) {
    event.preventDefault();
    if (!event.repeat) press(key);
  } else if (event.key === "Backspace" && !event.target.matches(WRITING)) {
    event.preventDefault();
    undo();
  } else if (event.key === "Escape") {
    again();
  }
});
addEventListener("keyup", (event) => {
  const key = keyOf(event);
  if (key) release(key);
});
addEventListener("blur", () => [...held].forEach(release));

for (const button of document.querySelectorAll("[data-key]")) {
  const key = button.dataset.key;
  button.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    button.setPointerCapture(event.pointerId);
    press(key);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, () => release(key));
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => { // a focused button and Enter
    if (event.key === "Enter" && !event.repeat) { press(key); release(key); }
  });
}

let buttons = ""; // of the gamepad that were down at the last look

/** The push of the first gamepad: left stick along the table, right stick up, down and turn, A closes, B opens. Null when it rests. */
function gamepad() {
  const pad = navigator.getGamepads().find(Boolean);
  if (!pad) return null;
  const axis = (i) => (Math.abs(pad.axes[i] ?? 0) > DEAD ? pad.axes[i] : 0);
  const down = (i) => Boolean(pad.buttons[i]?.pressed);
  const push = { move: [-axis(1), -axis(0), -axis(3)], turn: -axis(2), gripper: down(0) ? 1 : down(1) ? 0 : null };
  const idle = !push.turn && push.gripper === null && push.move.every((share) => !share);
  return idle ? null : push;
}

setInterval(() => {
  const pad = navigator.getGamepads().find(Boolean);
  byId("gamepad").textContent = pad ? "Gamepad: left stick moves, right stick lifts and turns, A closes, B opens." : "";
  const now = pad ? pad.buttons.map((button) => +button.pressed).join("") : "";
  if (now !== buttons && now[2] === "1") undo(); // X
  buttons = now;
  if (pad && !busy && !waiting.length && gamepad()) next();
}, 50);

// The other controls ------------------------------------------------------------------------------------------------

function undo() {
  if (busy || byId("undo").disabled) return;
  waiting = [];
  ask({ do: "undo" });
}

function again() {
  if (started && !busy) start(started.episode);
}

function shift(by) {
  const at = about.episodes.indexOf(started?.episode);
  const count = about.episodes.length;
  start(at < 0 ? about.episodes[0] : about.episodes[(at + by + count) % count]);
}

byId("undo").onclick = undo;
byId("again").onclick = again;
byId("previous").onclick = () => shift(-1);
byId("next").onclick = () => shift(1);
byId("dice").onclick = () => start(null);
byId("episode").title = `${about.episodes[0]} to ${about.episodes.at(-1)}`;
byId("episode").onchange = () => {
  byId("episode").blur(); // so that the next keys drive
  start(byId("episode").value === "" ? null : Number(byId("episode").value));
};
byId("run").onchange = () => { if (!busy && !waiting.length) next(); };
byId("step").oninput = showStep;
byId("sequence").onsubmit = (event) => {
  event.preventDefault();
  queue.push(...byId("letters").value.toLowerCase().replaceAll(/\s/g, ""));
  byId("letters").blur();
  if (!busy && !waiting.length) next();
};
byId("save-film").onclick = () => keep([{ as: "mp4" }]);
byId("save-episode").onclick = () => keep(models.map((model) => ({ as: "lerobot", model })));
showStep();

function showStep() {
  const step = Number(byId("step").value);
  byId("step-shown").textContent = `${step} cm, ${Math.round(TURN_FOR_STEP * step / 100 * DEGREES)}° a key`;
}

function keep(orders) {
  byId("saved").replaceChildren();
  for (const order of orders) ask({ do: "save", ...order });
}

function saved({ path, link }) {
  busy = false;
  byId("state").textContent = "idle";
  byId("saved").hidden = false;
  byId("saved").append(make("div", {}, "Saved: ", link ? make("a", { href: link, target: "_blank" }, path) : path));
}

/** Show a line about a request that was refused; the drive goes on. */
function warn(text) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = text;
  byId("state").textContent = "idle";
}

/** Show why the page cannot go on. */
function fail(text) {
  warn(text);
  byId("state").textContent = "stopped";
}

/** The canvases, by model and view. */
function build() {
  const root = document.documentElement.style;
  root.setProperty("--views", about.views.length);
  root.setProperty("--aspect", `${about.width} / ${about.height}`);
  byId("length-of-key").textContent = `${about.frames} frames, ${(about.frames / about.fps).toFixed(1)} s`;
  const factor = Math.max(1, Math.round(ENLARGED / about.width));
  return models.map((model) => {
    const drawn = about.views.map((view) => {
      const canvas = make("canvas", { className: "view", width: factor * about.width, height: factor * about.height });
      canvas.setAttribute("aria-label", `${about.models[model]}, ${view.replaceAll("_", " ")}`);
      return canvas;
    });
    const figures = drawn.map((canvas, view) => make("figure", {}, canvas, make("figcaption", {}, about.views[view].replaceAll("_", " "))));
    const gripper = make("span", {
      id: `gripper-${model}`, className: "tag number", title: "0 is open, 1 is closed; closing fingers that stop in between hold something",
    });
    const title = make("h2", {}, about.models[model], make("span", { className: "fill" }), gripper);
    byId("worlds").append(make("article", { className: "card world" }, title, make("div", { className: "views" }, ...figures)));
    return drawn.map((canvas) => {
      const context = canvas.getContext("2d", { alpha: false });
      context.imageSmoothingQuality = "high"; // people look at scenes, not at pixels
      return context;
    });
  });
}
