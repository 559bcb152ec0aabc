"""Writes the result tables of README.md and docs/results.md from the metrics in results/: python docs/result_tables.py, from the root.

Each table stands between a comment with its name and one that says `end`. The prose around them is written by hand.
"""

import re
from pathlib import Path

from persistworld.evaluation.score_table import METRICS
from persistworld.paper.blocks import p_text
from persistworld.runtime.files import read_json

RESULTS = Path("results/metrics")
# Longer runs whose metrics are kept (`make keep`), by the name of their preset.
PRESETS = {name: folder for name in ("tabletop_long", "tabletop_paper") if (folder := Path("results/presets") / name).is_dir()}
VIEWS = ("external", "wrist")
# Models outside the default run whose metrics were made.
ON_DEMAND = [name for name in ("own_history", "latent_credit", "paper_setting") if (RESULTS / f"{name}.json").is_file()]
README_MODELS = {
    "copy_frame": "`copy_frame`: the first frame, repeated",
    "base": "`base`",
    "teacher_forced": "`teacher_forced`: the control, equal compute",
    "post_trained": "`post_trained`",
}
README_ON_DEMAND = {"own_history": "`own_history`: supervised on its own rollouts, equal compute"}


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown; the first row is the header."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def scores(values: dict[str, float], digits: tuple[int, int, int] = (4, 2, 4)) -> list[str]:
    return [f"{values[metric]:.{places}f}" for metric, places in zip(METRICS, digits, strict=True)]


def wins(paired: dict[str, dict[str, float]]) -> list[str]:
    """Share of the episodes, and Wilcoxon's p."""
    return [f"{100 * paired[metric]['win_rate']:.0f} % ({p_text(paired[metric]['wilcoxon_p'])})" for metric in METRICS]


def default() -> str:
    """The README's: one row per model, both views side by side."""
    own = read_json(RESULTS / "table_1.json")
    rows = [("model", "external SSIM", "PSNR", "LPIPS", "wrist SSIM", "PSNR", "LPIPS")]
    rows += [(text, *scores(own["external"][name]), *scores(own["wrist"][name])) for name, text in README_MODELS.items()]
    for name, text in README_ON_DEMAND.items():
        found = read_json(RESULTS / f"{name}.json")["table_1"]
        rows.append((text, *scores(found["external"][name]), *scores(found["wrist"][name])))
    return table(rows)


def full_frames(view: str) -> str:
    """One row per model, then the share of the episodes that post_trained wins and Wilcoxon's p."""
    own = read_json(RESULTS / "table_1.json")[view]
    models = [(f"`{model}`", own[model]) for model in README_MODELS]
    models += [(f"`{name}`", read_json(RESULTS / f"{name}.json")["table_1"][view][name]) for name in ON_DEMAND]
    for name, folder in PRESETS.items():
        models.append((f"`post_trained` of `{name}`", read_json(folder / "table_1.json")[view]["post_trained"]))
    rows = [(f"{view}, full frame", "SSIM", "PSNR", "LPIPS"), *((name, *scores(values)) for name, values in models)]
    for folder, suffix in ((RESULTS, ""), *((folder, f", `{name}`") for name, folder in PRESETS.items())):
        for pair, paired in read_json(folder / "paired_details.json").items():
            ours, _, other = pair.partition("_vs_")
            if ours == "post_trained":
                rows.append((f"episodes that `post_trained` wins over `{other}` (p){suffix}", *wins(paired["decoded"][view]["full"])))
    for name in ON_DEMAND:
        pairs = read_json(RESULTS / f"{name}.json")["paired_details"]
        for other in ("base", "post_trained"):
            rows.append((f"episodes that `{name}` wins over `{other}` (p)", *wins(pairs[f"{name}_vs_{other}"][view]["full"])))
    return table(rows)


def masked() -> str:
    """One column per model, one row per view and region."""
    found = [(f"`{model}`", RESULTS, model) for model in ("base", "teacher_forced", "post_trained")]
    found += [(f"`post_trained` of `{name}`", folder, "post_trained") for name, folder in PRESETS.items()]
    rows = [("SSIM, PSNR, LPIPS", *(title for title, _, _ in found), *(f"`{name}`" for name in ON_DEMAND))]
    for view in VIEWS:
        models = [read_json(folder / "table_2.json")[view][model] for _, folder, model in found]
        models += [read_json(RESULTS / f"{name}.json")["table_2"][view][name] for name in ON_DEMAND]
        for region in ("object", "robot"):
            rows.append((f"{view}, {region}", *(", ".join(scores(model[region], (4, 2, 3))) for model in models)))
    return table(rows)


TABLES = {
    "README.md": {"default": default},
    "docs/results.md": {**{view: lambda view=view: full_frames(view) for view in VIEWS}, "masked": masked},
}


def with_tables(text: str, page: str) -> str:
    """`text` of a page with its tables made again. Raises SystemExit when the page has no place for one."""
    for name, make in TABLES[page].items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        text, found = place.subn(lambda _, make=make: make() + "\n", text, count=1)
        if not found:
            raise SystemExit(f"{page}: no table between <!-- {name} --> and <!-- end -->")
    return text


if __name__ == "__main__":
    for page in TABLES:
        Path(page).write_text(with_tables(Path(page).read_text(), page))
