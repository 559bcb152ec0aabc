// The driving page. One websocket, one drive. A request covers one chunk of frames; while a chunk plays, the next is asked for with the
// keys that are held then, as late as the models' speed allows.

import { byId, call, make, socket } from "./base.js";

const ARROWS = {
  ArrowUp: "f", ArrowDown: "b", ArrowLeft: "l", ArrowRight: "r", PageUp: "u", PageDown: "d", " ": ".",
};
const KEYS = "lrfbudqeoc.";
const TURN_FOR_STEP = 5; // rad of a turn for each metre of a step
const DEAD = 0.15; // of a gamepad's sticks

const about = await call("about").catch((error) => fail(error.message));
const models = Object.keys(about.models);
const canvases = build();

const held = new Set(); // keys that are down
const tapped = new Set(); // keys that went down since the last request
const queue = []; // letters of a sequence, one chunk each
let busy = false; // a request is on its way
let waiting = []; // frames that were received and not shown yet: [image, row of the first model]
let due = 0; // when the next frame is shown, ms
let timer = 0; // of the next request
let seconds = 0.3; // that a chunk takes the models, smoothed
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
    return fail(answer.error);
  }
  byId("trouble").hidden = true;
  if (answer.saved) return saved(answer.saved);
  expected = answer.started ?? answer.moved;
  if (answer.started) begin(answer.started);
  report(expected);
};

function ask(message) {
  busy = true;
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
}

function report(found) {
  if (found.seconds) {
    seconds = 0.7 * seconds + 0.3 * found.seconds;
    byId("speed").textContent = `${(about.frames / seconds).toFixed(1)} frames/s`;
  }
  const [x, y, z, , , yaw, grip] = found.pose;
  byId("pose").textContent = `x ${x.toFixed(3)}  y ${y.toFixed(3)}  z ${z.toFixed(3)} m   turn ${yaw.toFixed(2)}   gripper ${grip.toFixed(2)}`;
  byId("edge").hidden = !found.edge;
  byId("edge").textContent = `edge of the known workspace: ${[...found.edge].join(", ")}`;
  const frames = 1 + found.chunks * about.frames;
  byId("length").textContent = `${frames} frames, ${(frames / about.fps).toFixed(1)} s`;
  for (const name of ["undo", "save-film", "save-episode"]) byId(name).disabled = !found.chunks;
}

// Playing -----------------------------------------------------------------------------------------------------------

/** Take a picture apart into frames and play them; ask for the next chunk in time. */
function show(image, { frames }) {
  for (let frame = 0; frame < frames; frame += 1) waiting.push([image, frame * models.length]);
  busy = false;
  const now = performance.now();
  due = Math.max(due, now);
  requestAnimationFrame(play);
  const left = (waiting.length * period()) + (due - now);
  clearTimeout(timer);
  timer = setTimeout(next, Math.max(0, left - 1000 * seconds * 1.25 - 30));
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
  canvases.forEach((views, model) => views.forEach((context, view) => {
    context.drawImage(image, view * width, (row + model) * height, width, height, 0, 0, width, height);
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
  if (!busy && !waiting.length) next();
}

function release(key) {
  held.delete(key);
  mark(key, false);
}

function mark(key, down) {
  document.querySelector(`[data-key="${key}"]`)?.classList.toggle("held", down);
}

function keyOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[type=text], input[type=number]")) return null;
  const key = ARROWS[event.key] ?? event.key.toLowerCase();
  return key.length === 1 && KEYS.includes(key) ? key : null;
}

addEventListener("keydown", (event) => {
  const key = keyOf(event);
  if (key) {
    event.preventDefault();
    if (!event.repeat) press(key);
  } else if (event.key === "Backspace" && !event.target.matches("input")) {
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
byId("episode").onchange = () => start(Number(byId("episode").value));
byId("run").onchange = () => { if (!busy && !waiting.length) next(); };
byId("step").oninput = showStep;
byId("sequence").onsubmit = (event) => {
  event.preventDefault();
  queue.push(...byId("letters").value.toLowerCase().replaceAll(/\s/g, ""));
  byId("letters").blur();
  if (!busy && !waiting.length) next();
};
byId("save-film").onclick = () => ask({ do: "save", as: "mp4" });
byId("save-episode").onclick = () => models.forEach((model) => ask({ do: "save", as: "lerobot", model }));
showStep();

function showStep() {
  const step = Number(byId("step").value);
  byId("step-shown").textContent = `${step} cm, ${Math.round(TURN_FOR_STEP * step * 0.573)}° a chunk`;
}

function saved({ path, link }) {
  busy = false;
  byId("state").textContent = "idle";
  const where = byId("saved");
  where.hidden = false;
  where.replaceChildren("Saved: ", link ? make("a", { href: link, target: "_blank" }, path) : path);
}

function fail(text) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = text;
  byId("state").textContent = "stopped";
}

/** The canvases, by model and view. */
function build() {
  const root = document.documentElement.style;
  root.setProperty("--views", about.views.length);
  root.setProperty("--aspect", `${about.width} / ${about.height}`);
  return models.map((model) => {
    const drawn = about.views.map((view) => {
      const canvas = make("canvas", { className: "view", width: about.width, height: about.height });
      canvas.setAttribute("aria-label", `${about.models[model]}, ${view.replaceAll("_", " ")}`);
      return canvas;
    });
    const figures = drawn.map((canvas, view) => make("figure", {}, canvas, make("figcaption", {}, about.views[view].replaceAll("_", " "))));
    byId("worlds").append(make("article", { className: "card world" }, make("h2", {}, about.models[model]), make("div", { className: "views" }, ...figures)));
    return drawn.map((canvas) => canvas.getContext("2d", { alpha: false }));
  });
}
