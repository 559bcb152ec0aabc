"""The ablations in a parameter file: which runs the rows are, what a run has of the file, and what is refused."""

from pathlib import Path

import pytest
import yaml
from refusals import assert_names, refused

from persistworld.config.ablations import PAPER_AXES
from persistworld.config.derived import BASE_RUN
from persistworld.config.params import Params, load_params
from persistworld.config.reading import read_yaml
from persistworld.paper.cells import reported

PRESETS = Path(__file__).parents[1] / "presets"
AXES = {
    "k": {"title": "K", "rows": {"ours": None, "k_4": {"post_training": {"candidates": 4, "keep": 2}}}},
    "again": {"title": "K again", "rows": {"ours": None, "four": {"post_training": {"candidates": 4, "keep": 2}}}},
}
OVERLAY = {"reward": {"credit": "clip"}, "candidates": 16, "keep": 5, "streams": False}


def params_with(folder: Path, ablations: dict, **sections: object) -> Params:
    """The tabletop preset with these ablations."""
    raw = yaml.safe_load((PRESETS / "tabletop.yaml").read_text()) | {"ablations": ablations, "speed": {}} | sections
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return load_params(path)


def test_rows_that_are_equal_after_merging_are_one_run(tmp_path: Path) -> None:
    derived = params_with(tmp_path, {"training_seeds": [0, 1], "post_training": OVERLAY, "axes": AXES}).derived
    assert derived.rows["k"]["ours"] == derived.rows["again"]["ours"]
    assert derived.rows["k"]["k_4"] == derived.rows["again"]["four"]
    assert len({run for rows in derived.rows.values() for runs in rows.values() for run in runs}) == 4
    assert_names(derived.progress(derived.rows["again"]["four"][0]), 3, 4, "k_4", "seed 0")


def test_a_changed_row_is_another_run_and_the_others_stay(tmp_path: Path) -> None:
    before = params_with(tmp_path, {"post_training": OVERLAY, "axes": AXES}).derived.rows
    other = {"title": "K", "rows": {"ours": {"label": "renamed"}, "k_4": {"post_training": {"candidates": 4, "keep": 1}}}}
    after = params_with(tmp_path, {"post_training": OVERLAY, "axes": AXES | {"k": other}}).derived.rows
    assert after["k"]["ours"] == before["k"]["ours"] and after["again"] == before["again"]
    assert not set(after["k"]["k_4"]) & set(before["k"]["k_4"])


def test_a_run_has_the_shared_setting_the_rows_change_and_its_seed(tmp_path: Path) -> None:
    evaluation = {"episodes": 3, "seeds": [5], "split": "validation"}
    ablations = {"training_seeds": [0, 7], "post_training": OVERLAY, "evaluation": evaluation, "axes": AXES}
    params = params_with(tmp_path, ablations)
    first, second = (params.for_run(run) for run in params.derived.rows["k"]["k_4"])
    assert (first.seed, second.seed) == (0, 7)
    assert (first.post_training.candidates, first.post_training.keep, first.post_training.reward.credit) == (4, 2, "clip")
    assert first.post_training.lora == params.post_training.lora  # what nothing changes is the file's
    assert (first.rollout.chunks, first.evaluation.seeds, first.evaluation.episodes) == (10, (5,), 3)
    assert first.masks.source == "none" and params.masks.source == "simulator"
    assert params.for_run(BASE_RUN).evaluation == first.evaluation and params.rollout == load_params(PRESETS / "tabletop.yaml").rollout


def test_the_run_that_is_the_headline_is_not_trained_again(tmp_path: Path) -> None:
    axes = {"steps": {"title": "Steps", "rows": {"ours": None, "more": {"post_training": {"steps": 30}}}}}
    params = params_with(tmp_path, {"training_seeds": [0], "axes": axes})
    models = params.all_models
    ours, more = (models[runs[0]] for runs in params.derived.rows["steps"].values())
    assert ours.checkpoint == "post_trained" and more.checkpoint == more.name
    assert models.post_trainings == ["post_trained", *params.variants, more.name]


def test_other_rollouts_of_a_row_share_its_checkpoint(tmp_path: Path) -> None:
    axes = {"sampler": {"title": "Steps", "rows": {"ours": None, "one": {"rollout": {"sampler": {"steps": 1}}}}}}
    params = params_with(tmp_path, {"training_seeds": [0], "post_training": OVERLAY, "axes": axes})
    ours, one = (params.all_models[runs[0]] for runs in params.derived.rows["sampler"].values())
    assert one.checkpoint == ours.checkpoint and one.name != ours.name


def test_other_sampler_steps_train_nothing_and_the_models_own_are_their_own(tmp_path: Path) -> None:
    params = params_with(tmp_path, {}, speed={"steps": [1, 3]})
    assert params.derived.speed == {
        ("base", 1): "base-steps_1", ("base", 3): "base", ("post_trained", 1): "post_trained-steps_1", ("post_trained", 3): "post_trained",
    }  # fmt: skip
    assert params.for_run("base-steps_1").rollout.sampler.steps == 1
    assert params.all_models.post_trainings == params.models.post_trainings


@pytest.mark.parametrize(("preset", "credit"), [("tabletop", "cell"), ("droid", "clip")])
def test_the_presets_have_the_papers_tables_and_one_number_per_column_of_each(preset: str, credit: str) -> None:
    params = load_params(PRESETS / f"{preset}.yaml")
    printed = reported()["ablations"]
    assert printed.keys() == PAPER_AXES.keys() <= params.ablations.tables.keys()
    for name, rows in printed.items():
        assert rows.keys() == params.ablations.tables[name].rows.keys()
        assert all(len(row) == 7 for row in rows.values())
    assert params.for_run(BASE_RUN).rollout.chunks == 10
    ours = params.for_run(params.derived.rows["table_4"]["ours"][0]).post_training
    assert (ours.reward.credit, ours.reward.psnr, ours.candidates, ours.keep, ours.prefix) == (credit, 1 / 32, 16, 5, (0, 9))


@pytest.mark.parametrize(
    ("ablations", "named"),
    [
        ({"axes": {"k": {"rows": {"a": None, "b": None}}}}, ("ablations.axes.k", "title")),
        ({"axes": {"k": AXES["k"] | {"ours": "mine"}}}, ("ablations.axes.k.ours = mine", "k_4")),
        ({"axes": {"k": {"title": "K", "rows": {"ours": None}}}}, ("ablations.axes.k.rows = ours",)),
        ({"axes": {"K": AXES["k"]}}, ("ablations.axes = K",)),
        ({"axes": {"table_1": AXES["k"]}}, ("ablations.axes = table_1",)),
        ({"axes": {"k": {"title": "K", "rows": {"ours": None, "b": {"post_training": {"keep": 99}}}}}},
         ("ablations.axes.k.rows.b.post_training.keep = 99",)),
        ({"axes": {"k": {"title": "K", "rows": {"ours": None, "b": {"rollout": {"chunks": 3}}}}}},
         ("ablations.axes.k.rows.b.rollout.chunks = 3",)),
        ({"axes": AXES, "evaluation": {"split": "tuning"}}, ("ablations.evaluation.split = tuning", "episodes.splits")),
        ({"axes": AXES, "evaluation": {"splits": "tuning"}}, ("ablations.evaluation.splits", "'split'")),
        ({"axes": AXES, "post_training": {"stepz": 3}}, ("ablations.post_training.stepz", "'steps'")),
        ({"training_seeds": [1, 1]}, ("ablations.training_seeds = (1, 1)",)),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_one_line(tmp_path: Path, ablations: dict, named: tuple) -> None:
    with refused(*named):
        params_with(tmp_path, ablations)


def test_a_label_may_begin_like_a_number(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_text("ours: 3e4 (ours)\nrate: 1e-05\n")
    assert read_yaml(tmp_path / "labels.yaml") == {"ours": "3e4 (ours)", "rate": 1e-5}
