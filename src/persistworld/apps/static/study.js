// A rater's page: the introduction, then one item after the other. What stands on the server counts; the page shows it.

import { byId, make } from "./base.js";
import { Player } from "./study_player.js";
import { api, tokenFromLink } from "./study_api.js";

const VIEWS = { exterior_1: "external camera 1", exterior_2: "external camera 2", wrist: "wrist camera" };
let state, current, busy = false;

const player = new Player(
  (frame) => {
    byId("frame").value = frame;
    byId("frame").setAttribute("aria-valuetext", `frame ${frame + 1} of ${player.frames}`);
    byId("time").textContent = `${frame + 1}/${player.frames} · ${(frame / player.fps).toFixed(1)} s`;
  },
  () => playing(false),
);

/** Show one of the page's parts. */
function open(name) {
  for (const part of document.querySelectorAll("main")) part.hidden = part.id !== name;
  byId("help").hidden = name !== "rating";
  if (name !== "rating") player.pause();
  document.querySelector(`#${name} [tabindex="-1"]:not([hidden] *)`)?.focus();
  scrollTo(0, 0);
}

function message(text, bad = false) {
  byId("message").replaceChildren(make("p", { className: bad ? "notice bad" : "notice", role: bad ? "alert" : "status" }, text));
  open("message");
}

const unrated = () => state.items.find((item) => item.answer === null);
const answers = (item) => state.kind === "preference"
  ? [["a", "A"], ["b", "B"]]
  : [["0", "Nothing"], ...item.stages.map((stage, place) => [String(place + 1), stage])];

async function start() {
  if (!tokenFromLink()) return message("This page opens by an invitation link. Please use the link that the organisers sent you.", true);
  await reload();
  for (const kind of ["preference", "progress"]) {
    for (const part of document.querySelectorAll(`.for-${kind}`)) part.hidden = state.kind !== kind;
  }
  byId("title").textContent = state.title;
  document.title = state.title;
  if (!state.items.length) return message("This study has no videos.");
  if (!state.began) return open("introduction");
  begin();
}

async function reload() {
  state = await api("api/state");
  refresh();
}

function begin() {
  const item = unrated();
  item ? show(item) : open("finished");
}

/** What depends on the votes alone: the counter, the list, undo. */
function refresh() {
  const done = state.items.filter((item) => item.answer !== null).length;
  byId("count").textContent = `${done} of ${state.items.length} rated`;
  byId("progress").hidden = false;
  byId("progress").value = done / Math.max(1, state.items.length);
  byId("undo").disabled = byId("undo-last").disabled = state.last === null;
  byId("items").replaceChildren(...state.items.map((item, place) => {
    const said = item.answer === null ? "not rated" : `rated ${label(item)}`;
    const button = make("button", { textContent: place + 1, className: item.answer === null ? "" : "rated" });
    button.setAttribute("aria-label", `Video ${place + 1}, ${said}`);
    button.setAttribute("aria-current", item === current);
    button.addEventListener("click", () => show(item));
    return make("li", {}, button);
  }));
  if (current) markChoice();
}

const label = (item) => answers(item).find(([value]) => value === item.answer)?.[1] ?? item.answer;

function markChoice() {
  for (const button of byId("choices").children) {
    button.setAttribute("aria-pressed", button.dataset.value === current.answer);
    button.disabled = current.answer !== null || byId("films").classList.contains("loading");
  }
}

async function show(item) {
  current = item;
  const place = state.items.indexOf(item) + 1;
  const words = item.words ? `“${item.words}”` : "no instruction";
  const where = item.view ? ` · ${VIEWS[item.view] ?? item.view.replaceAll("_", " ")}` : "";
  byId("item-title").textContent = `Video ${place}: ${words}${where}`;
  byId("trouble").hidden = true;
  const slots = state.kind === "preference" ? [["reference", "Reference"], ["a", "A"], ["b", "B"]] : [["film", "Video"]];
  // All sources are set at once, and nothing is shown before all are there: the time that a film takes tells nothing.
  const films = slots.map(([slot, name]) => {
    const film = make("video", { src: `film/${item.item}/${slot}`, muted: true, playsInline: true, preload: "auto" });
    film.disablePictureInPicture = true;
    film.setAttribute("aria-label", name);
    film.tabIndex = -1;
    return film;
  });
  byId("films").className = films.length === 1 ? "loading single" : "loading";
  byId("films").replaceChildren(...films.map((film, at) => {
    const figure = make("figure", { className: slots[at][0].length > 1 ? "wide" : "" }, make("figcaption", {}, slots[at][1]), film);
    return figure;
  }));
  const choices = answers(item).map(([value, name]) => {
    const button = make("button", { textContent: name });
    button.dataset.value = value;
    if (state.kind === "preference") button.setAttribute("aria-label", `${name} is closer to the reference`);
    button.addEventListener("click", () => vote(value));
    return button;
  });
  byId("choices").className = choices.length > 2 ? "choices many" : "choices";
  byId("choices").replaceChildren(...choices);
  byId("choices").setAttribute("aria-label", state.title);
  byId("frame").max = item.frames - 1;
  refresh();
  open("rating");
  try {
    await player.open(films, item.frames, item.fps);
  } catch (error) {
    if (current === item) trouble(error);
    return;
  }
  if (current !== item) return;
  byId("films").classList.remove("loading");
  markChoice();
}

function trouble(error) {
  byId("trouble").textContent = error.message;
  byId("trouble").hidden = false;
}

/** Do one thing at a time with the server; where it refuses, show what stands there. */
async function attempt(action) {
  if (busy) return;
  busy = true;
  try {
    await action();
  } catch (error) {
    await reload().catch(() => {});
    if (current) current = state.items.find((item) => item.item === current.item);
    refresh();
    trouble(error);
  } finally {
    busy = false;
  }
}

function vote(answer) {
  const item = current;
  if (!item || item.answer !== null || byId("films").classList.contains("loading")) return;
  return attempt(async () => {
    const { last } = await api("api/answer", { item: item.item, answer, request: crypto.randomUUID?.() ?? madeUp() });
    item.answer = answer;
    state.last = last;
    byId("said").textContent = `Video ${state.items.indexOf(item) + 1}: ${label(item)} is saved.`;
    const rest = state.items.slice(state.items.indexOf(item)).find((other) => other.answer === null) ?? unrated();
    refresh();
    rest ? show(rest) : open("finished");
  });
}

/** A name for a request; randomUUID exists on secure pages alone. */
const madeUp = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function undo() {
  const item = state.items.find((other) => other.item === state.last);
  if (!item) return;
  return attempt(async () => {
    const { last } = await api("api/undo", { item: item.item });
    item.answer = null;
    state.last = last;
    byId("said").textContent = `The vote on video ${state.items.indexOf(item) + 1} is undone.`;
    show(item);
  });
}

function playing(now) {
  byId("play").textContent = now ? "Pause" : "Play";
  byId("play").setAttribute("aria-pressed", now);
}

function toggle() {
  if (player.playing) return player.pause();
  player.play();
  playing(player.playing);
}

function step(by) {
  player.pause();
  player.show(player.frame + by);
}

document.addEventListener("keydown", (event) => {
  if (byId("rating").hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, input:not([type=range])")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const wide = event.shiftKey ? 5 : 1;
  const actions = {
    " ": toggle, ArrowLeft: () => step(-wide), ArrowRight: () => step(wide), Home: () => step(-Infinity), End: () => step(Infinity),
    u: undo, n: () => unrated() && show(unrated()),
  };
  const answer = answers(current).find(([value]) => value === key);
  if (key === " " && event.target.matches("button, summary")) return; // the browser presses what has the focus
  if (!actions[key] && !answer) return;
  event.preventDefault();
  if (event.repeat && !key.startsWith("Arrow")) return; // a key that is held is one vote
  actions[key] ? actions[key]() : vote(answer[0]);
});

byId("start").addEventListener("click", () => attempt(async () => {
  if (!state.began) await api("api/begin", {});
  state.began = true;
  current && !current.answer ? show(current) : begin();
}));
byId("help").addEventListener("click", () => open("introduction"));
byId("play").addEventListener("click", toggle);
byId("back").addEventListener("click", () => step(-1));
byId("on").addEventListener("click", () => step(1));
byId("frame").addEventListener("input", () => { player.pause(); player.show(Number(byId("frame").value)); });
byId("undo").addEventListener("click", undo);
byId("undo-last").addEventListener("click", undo);
byId("next").addEventListener("click", () => unrated() ? show(unrated()) : open("finished"));
byId("look-again").addEventListener("click", () => show(state.items[0]));
byId("send").addEventListener("click", async () => {
  const text = byId("remark").value.trim();
  if (!text) return;
  try {
    await api("api/remark", { text });
    byId("remark").value = "";
    byId("sent").textContent = "Sent. Thank you.";
  } catch (error) {
    byId("sent").textContent = error.message;
  }
});
// The link of another rater in the same tab: another fragment does not load the page anew.
addEventListener("hashchange", () => location.reload());
start().catch((error) => message(error.message, true));
