"""The tables of an ablation and of speed against quality, from scores with known effects."""

import json
from pathlib import Path

import pandas as pd
import pytest
from refusals import refused
from synthetic_scores import GAIN, META, model_frame

from persistworld.config.ablations import PAPER_AXES, AxisConfig
from persistworld.config.models import Models
from persistworld.config.variants import VariantConfig
from persistworld.evaluation.score_table import Scores, load_scores, write_scores
from persistworld.paper.ablations import AblationTable, ablation_table, write_ablation
from persistworld.paper.notes import Settings
from persistworld.paper.speed import speed_points, write_speed

SETTINGS = Settings(scale="tabletop", protocol="decoded", seeds=(0, 1), bootstrap=50)
EFFECTS = {"start": 0.0, "low_0": 1.0, "low_1": 1.2, "high_0": 2.0, "high_1": 2.2}
RUNS = {"ours": ["low_0", "low_1"], "w_2": ["high_0", "high_1"]}
AXIS = AxisConfig("Weight", {"ours": VariantConfig("1 (ours)"), "w_2": VariantConfig("2")})


def scores_of(folder: Path, episodes: int = 8, **effects: float) -> Scores:
    for model, effect in effects.items():
        write_scores(folder / f"{model}.parquet", model_frame(model, effect, episodes, 5), META | {"empty_masks": {}})
    return load_scores([folder / f"{model}.parquet" for model in effects], list(effects))


def table_of(scores: Scores, name: str = "table_8", axis: AxisConfig = AXIS) -> AblationTable:
    evaluations, seconds = dict.fromkeys(EFFECTS, 100.0) | {"low_1": 300.0}, dict.fromkeys(EFFECTS, 5.0)
    return ablation_table(name, axis, RUNS, "start", scores, SETTINGS, evaluations, seconds)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    return scores_of(tmp_path_factory.mktemp("scores"), **EFFECTS)


def test_a_row_is_the_mean_of_its_training_seeds_and_the_better_row_is_bold(scores: Scores, tmp_path: Path) -> None:
    write_ablation(table_of(scores), scores, SETTINGS, tmp_path, tmp_path)
    found = json.loads((tmp_path / "table_8.json").read_text())
    for group in ("external", "wrist"):
        for metric, gain in GAIN.items():
            start = found["base"][group][metric]
            assert found["rows"]["ours"][group][metric] == pytest.approx(start + 1.1 * gain, rel=1e-4)
            assert found["rows"]["w_2"][group][metric] == pytest.approx(start + 2.1 * gain, rel=1e-4)
    assert found["rows"]["ours"]["unet_evaluations"] == 200
    [low], [high] = ([line for line in (tmp_path / "table_8.md").read_text().splitlines() if line.startswith(f"| {row} |")][:1]
                     for row in ("1 (ours)", "2"))  # fmt: skip
    assert low.count("**") == 0 and high.count("**") == 12 and low.rstrip(" |").endswith("| 200 | 5")
    assert r"\textbf{" in (tmp_path / "table_8.tex").read_text()


def test_the_papers_numbers_stand_apart_and_only_where_the_paper_has_the_table(scores: Scores, tmp_path: Path) -> None:
    for name in ("table_8", "mine"):
        write_ablation(table_of(scores, name), scores, SETTINGS, tmp_path, tmp_path)
    table = pd.read_csv(tmp_path / "table_8.csv")
    printed = table[table["source"] == "paper"].set_index(["row", "view", "metric"])["value"]
    assert printed["w_2", "wrist", "psnr"] == 20.47 and len(printed) == 12
    assert set(pd.read_csv(tmp_path / "mine.csv")["source"]) == {"this run"}
    assert "20.47" not in (tmp_path / "table_8.json").read_text()


def test_rows_that_training_seeds_separate_as_much_are_not_bold_and_the_table_warns(tmp_path: Path) -> None:
    scores = scores_of(tmp_path, **EFFECTS | {"low_1": 2.1, "start": 1.5})
    table = table_of(scores)
    assert not any(table.marks.values())
    _, notes = write_ablation(table, scores, SETTINGS, tmp_path, tmp_path)
    assert notes[0].startswith("WARNING") and notes[0] in (tmp_path / "table_8.md").read_text()


def test_rows_with_other_episodes_are_refused(scores: Scores, tmp_path: Path) -> None:
    fewer = scores.frame[(scores.frame["model"] != "low_1") | (scores.frame["episode"] > 3)]
    with refused("low_1.parquet", "start"):
        table_of(Scores(fewer, scores.meta))


def test_every_table_of_the_paper_is_an_axis_that_can_be_printed(scores: Scores, tmp_path: Path) -> None:
    for name, axis in PAPER_AXES.items():
        runs = {row: ["high_0"] if row == axis.ours else ["low_0"] for row in axis.rows}
        table = ablation_table(name, axis, runs, "start", scores, SETTINGS, {}, {})
        write_ablation(table, scores, SETTINGS, tmp_path, tmp_path)
        printed = (tmp_path / f"{name}.md").read_text()
        assert all(f"| {axis.label(row)} |" in printed for row in axis.rows)


def test_speed_is_bold_where_the_model_beats_the_base_with_as_many_steps(scores: Scores, tmp_path: Path) -> None:
    runs = {("base", 1): "start", ("post_trained", 1): "low_0", ("base", 3): "high_0", ("post_trained", 3): "low_1"}
    seconds = {("base", 1): 0.5, ("post_trained", 1): 0.25, ("base", 3): 1.5, ("post_trained", 3): 1.25}
    points = speed_points(runs, seconds, scores, SETTINGS)
    assert len(points["post_trained", 1].gains) == 6 and not points["post_trained", 3].gains
    write_speed(points, Models(), scores, SETTINGS, "a test", tmp_path, tmp_path)
    found = json.loads((tmp_path / "speed.json").read_text())["post_trained"]
    assert found["steps_1"]["seconds_per_chunk"] == 0.25 and found["steps_3"]["wrist"].keys() == {"ssim", "psnr", "lpips"}
