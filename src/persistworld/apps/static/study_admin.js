// The administrator's page: progress, agreement, export.

import { byId, make } from "./base.js";
import { api, tokenFromLink } from "./study_api.js";

const percent = (value) => value === null ? "–" : `${(100 * value).toFixed(1)} %`;
const number = (value) => value === null ? "–" : value.toFixed(2);
const small = (p) => p === null ? "–" : p < 0.001 ? p.toExponential(0) : p.toFixed(3);

function table(heads, rows) {
  const cells = (kind, values) => values.map((value, at) => make(kind, { className: at ? "number" : "" }, value));
  return make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", heads))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells("td", row)))));
}

function votes(found) {
  const parts = Object.entries(found.preference).flatMap(([kind, part]) =>
    kind === "all" ? [["all", part]] : Object.entries(part).map(([name, inner]) => [`${kind} ${name}`, inner]));
  const rows = parts.map(([name, part]) =>
    [name, `${part.wins} : ${part.losses}`, percent(part.share), `${percent(part.low)} to ${percent(part.high)}`, small(part.p)]);
  const { agreement, position } = found;
  return [
    table([`${found.ours} over ${found.theirs}`, "votes", "share", "95 % (exact)", "one-sided p"], rows),
    make("p", {}, `Agreement on ${agreement.items} items with two votes or more: Fleiss' kappa ${number(agreement.fleiss_kappa)}, `
      + `Krippendorff's alpha ${number(agreement.krippendorff_alpha)}.`),
    make("p", {}, `A was chosen in ${percent(position.share_a)} (two-sided p ${small(position.p)}).`),
  ];
}

const labels = (found) => [
  table(["world and policy", "mean progress"], found.progress.map((row) => [`${row.world}: ${row.policy}`, number(row.progress)])),
  make("p", {}, `Agreement on ${found.shared} rollouts with two labels or more: Krippendorff's alpha ${number(found.alpha)}.`),
];

async function reload() {
  const found = await api("api/summary");
  byId("title").textContent = `Study: ${found.title}`;
  byId("progress-text").textContent = `${found.answered} of ${found.wanted} answers, ${found.raters.length} raters, ${found.items} items`;
  byId("progress").value = found.wanted ? found.answered / found.wanted : 0;
  byId("raters").replaceChildren(...found.raters.map((rater) => make("tr", {}, make("td", {}, rater.name), make("td", {}, rater.state))));
  const shown = found.results === null ? [make("p", { className: "quiet" }, "No answers yet.")]
    : found.kind === "preference" ? votes(found.results) : labels(found.results);
  byId("results").replaceChildren(...shown);
  byId("remarks").replaceChildren(...found.remarks.map((text) => make("li", {}, text)));
  byId("trouble").hidden = true;
}

async function save() {
  const answer = await fetch("api/answers.csv", { headers: { Authorization: `Bearer ${tokenFromLink()}` } });
  if (!answer.ok) throw new Error((await answer.json()).error);
  const link = make("a", { href: URL.createObjectURL(await answer.blob()), download: "answers.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

const tell = (error) => { byId("trouble").textContent = error.message; byId("trouble").hidden = false; };
byId("reload").addEventListener("click", () => reload().catch(tell));
byId("export").addEventListener("click", () => save().catch(tell));
addEventListener("hashchange", () => location.reload());
reload().catch(tell);
