"""Rewrites the result tables of README.md from the metrics in results/: python docs/readme_tables.py, from the repository's root.

Each stands in the README between a comment with its name (external, wrist, masked) and one that says `end`; the prose is written by hand.
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


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown, the first row its head."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def scores(values: dict[str, float], digits: tuple[int, int, int]) -> list[str]:
    return [f"{values[metric]:.{places}f}" for metric, places in zip(METRICS, digits, strict=True)]


def wins(paired: dict[str, dict[str, float]]) -> list[str]:
    """Share of the episodes, and Wilcoxon's p."""
    return [f"{100 * paired[metric]['win_rate']:.0f} % ({p_text(paired[metric]['wilcoxon_p'])})" for metric in METRICS]


def full_frames(view: str) -> str:
    own, long = (read_json(folder / "table_1.json")[view] for folder in (RESULTS, LONG))
    variant = read_json(RESULTS / f"{VARIANT}.json")["table_1"][view][VARIANT]
    models = [(f"`{model}`", own[model]) for model in ("copy_frame", "base", "teacher_forced", "post_trained")]
    models.append((f"`{VARIANT}`: the paper's reward, K and N", variant))
    models.append(("`post_trained` of the preset tabletop_long", long["post_trained"]))
    rows = [(f"{view}, full frame", "SSIM", "PSNR", "LPIPS"), *((name, *scores(values, (4, 2, 4))) for name, values in models)]
    name = "episodes that `post_trained` wins over `{}` (p)"
    for text, folder, other in ((name, RESULTS, "base"), ("the same, tabletop_long", LONG, "base"), (name, RESULTS, "teacher_forced")):
        paired = read_json(folder / "paired_details.json")[f"post_trained_vs_{other}"]["decoded"]
        rows.append((text.format(other), *wins(paired[view]["full"])))
    return table(rows)


def masked() -> str:
    own, long = (read_json(folder / "table_2.json") for folder in (RESULTS, LONG))
    rows = [("masked", "base: SSIM, PSNR, LPIPS", "teacher_forced", "post-trained", "tabletop_long")]
    for view in VIEWS:
        models = (own[view]["base"], own[view]["teacher_forced"], own[view]["post_trained"], long[view]["post_trained"])
        for region in ("object", "robot"):
            rows.append((f"{view}, {region}", *(", ".join(scores(model[region], (4, 2, 3))) for model in models)))
    return table(rows)


def main() -> None:
    readme = Path("README.md")
    text = readme.read_text()
    for name, new in (*((view, full_frames(view)) for view in VIEWS), ("masked", masked())):
        text, found = re.subn(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end -->)", lambda _, new=new: new, text, flags=re.DOTALL)
        if not found:
            raise SystemExit(f"README.md: no table between <!-- {name} --> and <!-- end -->")
    readme.write_text(text)


if __name__ == "__main__":
    main()
