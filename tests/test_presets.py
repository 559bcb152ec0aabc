"""Every preset loads, and `droid` holds what the paper and its base model's code name (paper section 4, appendices B and E)."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from refusals import refused

from persistworld.config.params import Params, load_params
from persistworld.config.variants import VariantConfig
from persistworld.data.formats import open_episodes
from persistworld.post_training.cost import post_training_cost

ROOT = Path(__file__).parents[1]
PRESETS = {path.stem: path for path in sorted((ROOT / "presets").glob("*.yaml"))}
SAMPLE = ROOT.parent / "shared/droid_sample"


@pytest.fixture(scope="module")
def droid() -> Params:
    return load_params(PRESETS["droid"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_under_its_own_name(name: str) -> None:
    assert load_params(PRESETS[name]).preset == name


def test_the_presets_that_the_readme_names_are_there() -> None:
    made_here = {"tabletop", "tabletop_long", "tabletop_paper", "tabletop_base"}
    assert made_here | {"droid", "droid_cosmos3", "droid_single_gpu", "droid_sample"} <= PRESETS.keys()


def test_droid_is_the_papers_post_training(droid: Params) -> None:
    settings = droid.post_training
    assert (settings.steps, settings.groups, settings.candidates, settings.keep) == (8_000, 64, 16, 5)
    assert (settings.prefix, settings.prefix_schedule, settings.branch) == ((0, 9), "random", 1)
    assert (settings.lora.rank, settings.lora.alpha, settings.train_action_encoder) == (64, 64.0, True)
    assert (settings.optimizer.name, settings.optimizer.learning_rate) == ("muon", 1e-4)
    assert (settings.old_ema_slope, settings.old_ema_max, settings.weight_ema) == (0.001, 0.5, 0.0)
    assert settings.kl_weight > 0 and settings.loss_weighting == "plain" and settings.sampling_policy == "theta"


def test_droid_is_the_papers_reward(droid: Params) -> None:
    reward = droid.post_training.reward
    assert (reward.lpips, reward.ssim, reward.psnr) == (1.0, 1.0, 1 / 32)
    assert set(reward.view_weights.values()) == {1.0} and (reward.credit, reward.target) == ("clip", "raw")


def test_droid_samples_and_evaluates_as_the_paper(droid: Params) -> None:
    sampler = droid.rollout.sampler
    assert (sampler.steps, sampler.sigma_min, sampler.sigma_max, sampler.guidance) == (50, 0.002, 700.0, 1.0)
    assert droid.post_training.sampler == sampler
    assert droid.rollout.chunks * (droid.world_model.future - 1) + 1 == 57
    assert (droid.metrics.lpips, droid.metrics.ssim_window, droid.masks.source) == ("alex", 7, "roboengine")


def test_droid_is_droids_data_and_ctrl_worlds_model(droid: Params) -> None:
    episodes = droid.episodes
    assert (episodes.height, episodes.width, episodes.fps) == (192, 320, 5.0)
    assert (episodes.modulus, episodes.validation, episodes.count) == (100, (99,), 95_600)
    assert episodes.views == ("exterior_1", "exterior_2", "wrist")
    assert droid.world_model == Params().world_model  # SVD's sizes, H = 6, L = 5, Euler angles, text
    assert (droid.base_checkpoint.source, droid.base_checkpoint.location) == ("hf", "yjguo/Ctrl-World")


def test_one_gpu_changes_the_size_of_a_step_and_nothing_of_the_method(droid: Params) -> None:
    single = load_params(PRESETS["droid_single_gpu"])
    changed = {"steps", "groups"}
    ours, theirs = vars(single.post_training), vars(droid.post_training)
    assert {name for name in theirs if ours[name] != theirs[name]} == changed
    sections = {each.name for each in fields(droid) if getattr(single, each.name) != getattr(droid, each.name)}
    assert sections == {"preset", "post_training", "compute", "evaluation"}
    assert post_training_cost(single.post_training) < post_training_cost(droid.post_training) / 40


def test_a_variant_can_be_evaluated_and_has_its_own_settings(droid: Params) -> None:
    variants = {"mild": VariantConfig(post_training={"beta": 0.5})}
    params = replace(droid, variants=variants, evaluation=replace(droid.evaluation, models=("base", "mild")))
    params.check()
    assert params.for_run("mild").post_training == replace(droid.post_training, beta=0.5)
    with refused("evaluation.models = mild", "copy_frame"):
        replace(params, variants={}).check()


def test_droids_newest_release_differs_in_its_data_alone(droid: Params) -> None:
    newest = load_params(PRESETS["droid_cosmos3"])
    assert replace(newest, preset=droid.preset, episodes=droid.episodes) == droid
    same = ("views", "height", "width", "fps", "modulus", "validation", "splits")
    assert all(getattr(newest.episodes, name) == getattr(droid.episodes, name) for name in same)


@pytest.mark.parametrize("name", ["droid", "droid_single_gpu"])
def test_a_hub_checkpoint_without_a_revision_is_one_line(name: str, tmp_path: Path) -> None:
    raw = yaml.safe_load(PRESETS[name].read_text())
    del raw["base_checkpoint"]["revision"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    with refused(path, "base_checkpoint.revision = None"):
        load_params(path)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of DROID episodes is not beside this clone")
def test_droid_sample_fits_its_episodes() -> None:
    params = load_params(PRESETS["droid_sample"])
    source = open_episodes(ROOT / params.episodes.path)
    indices = [i for i in source.indices() if i < params.episodes.count]
    frames = {split: [] for split in ("train", "validation")}
    for index in indices:
        frames[source.split(index)].append(len(source.episode(index).pose))
    stride = params.world_model.future - 1
    assert len(indices) == 6 and len(frames["train"]) == params.base_training.autoencoder_episodes
    assert min(frames["validation"]) >= params.rollout.chunks * stride + 1
    assert min(frames["train"]) >= (params.post_training.prefix[1] + params.post_training.branch) * stride + 1
