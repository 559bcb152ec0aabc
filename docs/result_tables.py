"""Writes the result tables of README.md and docs/results.md from the metrics in results/: python docs/result_tables.py, from the root.

Each table stands between a comment with its name and one that says `end`. The prose around them is written by hand.
"""

import re
from pathlib import Path

from persistworld.evaluation.score_table import METRICS
from persistworld.paper.blocks import p_text
from persistworld.runtime.files import read_json

RESULTS = Path("results/metrics")
LONG = Path("results/presets/tabletop_long")
VIEWS = ("external", "wrist")
VARIANT = "paper_setting"
README_MODELS = {
    "copy_frame": "`copy_frame`: the first frame, repeated",
    "base": "`base`",
    "teacher_forced": "`teacher_forced`: the control, equal compute",
    "post_trained": "`post_trained`",
}


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
    return table(rows + [(text, *scores(own["external"][name]), *scores(own["wrist"][name])) for name, text in README_MODELS.items()])


def full_frames(view: str) -> str:
    own, long = (read_json(folder / "table_1.json")[view] for folder in (RESULTS, LONG))
    variant = read_json(RESULTS / f"{VARIANT}.json")["table_1"][view][VARIANT]
    models = [(f"`{model}`", own[model]) for model in README_MODELS]
    models.append((f"`{VARIANT}`", variant))
    models.append(("`post_trained` of `tabletop_long`", long["post_trained"]))
    rows = [(f"{view}, full frame", "SSIM", "PSNR", "LPIPS"), *((name, *scores(values)) for name, values in models)]
    name = "episodes that `post_trained` wins over `{}` (p)"
    for text, folder, other in ((name, RESULTS, "base"), (f"{name}, `tabletop_long`", LONG, "base"), (name, RESULTS, "teacher_forced")):
        paired = read_json(folder / "paired_details.json")[f"post_trained_vs_{other}"]["decoded"]
        rows.append((text.format(other), *wins(paired[view]["full"])))
    return table(rows)


def masked() -> str:
    own, long = (read_json(folder / "table_2.json") for folder in (RESULTS, LONG))
    rows = [("SSIM, PSNR, LPIPS", "`base`", "`teacher_forced`", "`post_trained`", "`post_trained` of `tabletop_long`")]
    for view in VIEWS:
        models = (own[view]["base"], own[view]["teacher_forced"], own[view]["post_trained"], long[view]["post_trained"])
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
