"""Rewrites the result tables of README.md from the metrics in results/: python docs/readme_tables.py, from the repository's root.

They stand in the README between `<!-- TABLE -->` and `<!-- end -->`; the prose around them is written by hand.
"""

import json
import re
from pathlib import Path

RESULTS = Path("results/metrics")
LONG = Path("results/presets/tabletop_long")
METRICS = ("ssim", "psnr", "lpips")
VIEWS = ("external", "wrist")
VARIANT = "paper_setting"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def scores(values: dict[str, float], digits: tuple[int, int, int]) -> list[str]:
    return [f"{values[metric]:.{places}f}" for metric, places in zip(METRICS, digits, strict=True)]


def p_value(p: float) -> str:
    return f"{p:.2f}".lstrip("0") if p >= 0.0095 else f"{p:.0e}".replace("e-0", "e-")


def wins(paired: dict) -> list[str]:
    """Share of the episodes and Wilcoxon's p, of full frames under the decoded protocol."""
    return [f"{paired[m]['win_rate']:.0%} ({p_value(paired[m]['wilcoxon_p'])})".replace("%", " %") for m in METRICS]


def full_frames(view: str) -> list[str]:
    own, long = read(RESULTS / "table_1.json")[view], read(LONG / "table_1.json")[view]
    paired, paired_long = read(RESULTS / "paired_details.json"), read(LONG / "paired_details.json")
    rows = [(f"`{model}`", own[model]) for model in ("copy_frame", "base", "teacher_forced", "post_trained", "autoencoder")]
    rows.append((f"`{VARIANT}`: the paper's own reward and K", read(RESULTS / f"{VARIANT}.json")["table_1"][view][VARIANT]))
    rows += [(f"`{model}` of the preset tabletop_long", long[model]) for model in ("teacher_forced", "post_trained")]
    lines = [(f"{view}, full frame", "SSIM", "PSNR", "LPIPS"), ("---",) * 4]
    lines += [(name, *scores(values, (4, 2, 4))) for name, values in rows]
    for other in ("base", "teacher_forced"):
        for name, source in ((f"episodes that `post_trained` wins over `{other}` (p)", paired), ("the same, tabletop_long", paired_long)):
            lines.append((name, *wins(source[f"post_trained_vs_{other}"]["decoded"][view]["full"])))
    return [f"| {' | '.join(cells)} |" for cells in lines]


def masked() -> list[str]:
    own, long = read(RESULTS / "table_2.json"), read(LONG / "table_2.json")
    lines = ["| masked | base: SSIM, PSNR, LPIPS | teacher_forced | post-trained | tabletop_long |", "|---|---|---|---|---|"]
    for view in VIEWS:
        for region in ("object", "robot"):
            models = (own[view]["base"], own[view]["teacher_forced"], own[view]["post_trained"], long[view]["post_trained"])
            cells = (", ".join(scores(model[region], (4, 2, 3))) for model in models)
            lines.append(f"| {view}, {region} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    readme = Path("README.md")
    text = readme.read_text()
    for name, lines in (*((view, full_frames(view)) for view in VIEWS), ("masked", masked())):
        table = "\n".join(lines).replace("| --- | --- | --- | --- |", "|---|---|---|---|")
        text, found = re.subn(rf"(<!-- {name} -->\n).*?(?=\n<!-- end -->)", lambda m, t=table: m[1] + t, text, flags=re.DOTALL)
        if not found:
            raise SystemExit(f"README.md: no table between <!-- {name} --> and <!-- end -->")
    readme.write_text(text)


if __name__ == "__main__":
    main()
