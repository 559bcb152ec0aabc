"""What a parameter file may say: a value that cannot work is refused when it is read, in one line that names the key and what to do."""

import dataclasses
import functools
import json
import math
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from refusals import refused

from persistworld.config.params import Params, load_params
from persistworld.config.reading import build_section
from persistworld.runtime.errors import UserError

PARAMS = Path(__file__).parents[1] / "presets/tabletop.yaml"  # params.yaml is the user's
COMMIT = "a" * 40


def changed(folder: Path, changes: dict[str, object]) -> Path:
    """The default parameters with `changes`: dotted key -> value."""
    raw = yaml.safe_load(PARAMS.read_text())
    for key, value in changes.items():
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("episodes.modulus", 0, (1,)),
        ("episodes.height", 0, (1,)),
        ("episodes.views", ["wrist", "exterior_1", "wrist"], ("wrist",)),
        ("episodes.splits", [], ("train", "tuning", "validation")),
        ("episodes.splits", ["train", "validation", "train"], ("train",)),
        ("compute.encode_batch", 0, (1,)),
        ("latents.shards", 0, (1,)),
        ("world_model.history", 0, (1,)),
        ("world_model.unet.channels", [40, 96], (32,)),
        ("world_model.unet.heads", [5, 3], ("unet.channels",)),
        ("world_model.unet.layers", 0, (1,)),
        ("world_model.autoencoder.channels", [], (32,)),
        ("world_model.autoencoder.scaling_factor", 0.0, ()),
        ("world_model.text_encoder.heads", 3, ("hidden = 64",)),
        ("base_training.steps", 0, (1,)),
        ("base_training.batch", 0, (1,)),
        ("compute.base_training.save_every", 0, (1,)),
        ("base_training.warmup", -1, (0,)),
        ("base_training.history_noise", -0.3, (0,)),
        ("base_training.action_dropout", 1.5, ("0..1",)),
        ("base_training.history_collapse", -0.1, ("0..1",)),
        ("base_training.weight_ema", 1.0, (1,)),
        ("base_training.frame_skips", [], ()),
        ("base_training.frame_skips", [0], (1,)),
        ("base_training.optimizer.learning_rate", 0.0, ()),
        ("base_training.autoencoder_optimizer.learning_rate", -1.0e-3, ()),
        ("compute.rollout.batch", 0, (1,)),
        ("rollout.history_index", [0, 0, -40, -6, -4, -2], ("-24 to 0",)),
        ("rollout.history_index", [0, 0, 8, -6, -4, -2], ("-24 to 0",)),
        ("rollout.sampler.rho", 0.0, ()),
        ("rollout.sampler.noise_aug", -0.02, (0,)),
        ("post_training.groups", 0, (1,)),
        ("compute.post_training.save_every", 0, (1,)),
        ("post_training.kl_weight", -1.0, (0,)),
        ("post_training.kl_prefix", -2, (0,)),
        ("seed", -1, (0,)),
        ("seed", 1 << 63, (0,)),
        ("post_training.sigma_std", -0.9, (0,)),
        ("post_training.old_ema_max", 1.5, ("0..1",)),
        ("post_training.weight_ema", 1.0, (1,)),
        ("post_training.lora.rank", 0, (1,)),
        ("post_training.lora.alpha", 0.0, ()),
        ("post_training.optimizer.clip_norm", 0.0, ()),
        ("post_training.optimizer.decay_from", 1.1, ("0..1",)),
        ("post_training.reward.epsilon", 0.0, ()),
        ("post_training.reward.ssim", -1.0, (0,)),
        ("compute.mask_batch", 0, (1,)),
        ("metrics.ssim_window", 33, ("32 pixels",)),
        ("evaluation.episodes", -1, (0,)),
        ("evaluation.seeds", [0, 0], (0,)),
        ("evaluation.models", ["base", "base"], ("base",)),
        ("evaluation.split", "tuning", ("episodes.splits",)),
        ("paper.bootstrap", 0, (1,)),
        ("paper.confidence", 95.0, (0, 1)),
        ("evaluation.models", [], ()),
        ("evaluation.seeds", [40_000], ("-32768 to 32767",)),
        ("episodes.fps", math.inf, ()),
        ("post_training.optimizer.learning_rate", math.nan, ()),
        ("post_training.sigma_mean", -math.inf, ()),
        ("variants", {"a": 3}, ("variants.a",)),
        ("variants", {"a": ["steps"]}, ("variants.a",)),
        ("variants", {"a": {"steps": 3}}, ("variants.a.steps",)),
        ("variants", {"a": {"post_training": {"stepz": 3}}}, ("variants.a.post_training.stepz", "'steps'")),
        ("variants", {"a": {"post_training": {"keep": 99}}}, ("variants.a.post_training.keep = 99",)),
        ("variants", {"a": {"rollout": {"sampler": {"steps": 0}}}}, ("variants.a.rollout.sampler.steps = 0",)),
        ("variants", {"a": {"rollout": {"chunks": 2}}}, ("variants.a.rollout.chunks = 2",)),
        ("variants", {"a": {"seed": -1}}, ("variants.a.seed = -1",)),
        ("variants", {"a": {"label": "a | b"}}, ("variants.a.label = a | b",)),
        ("variants", {"a": {"base_checkpoint": {"source": "hf"}}}, ("variants.a.base_checkpoint.revision = None",)),
        ("variants", {"a": {"base_checkpoint": {"location": "x"}}, "a_base": {}}, ("variants = a_base",)),
        ("variants", {"a/b": {}}, ("variants = a/b",)),
        ("variants", {"../x": {}}, ("variants = ../x",)),
        ("variants", {"Big": {}}, ("variants = Big",)),
        ("variants", {"2nd": {}}, ("variants = 2nd",)),
        ("variants", {"table_1": {}}, ("variants = table_1",)),
        ("variants", {"paired_details": {}}, ("variants = paired_details",)),
        ("variants", {"masks": {}}, ("variants = masks",)),
        ("variants", {"fetched": {}}, ("variants = fetched",)),
        ("variants.latent_credit.post_training.lora.rank", 0, (1,)),
    ],
)
def test_a_value_that_cannot_work_is_one_line(tmp_path: Path, key: str, value: object, named: tuple) -> None:
    path = changed(tmp_path, {key: value})
    with refused(f"{path}: {key}", *named):
        load_params(path)


def test_weights_of_views_are_of_views_that_there_are_and_not_all_0(tmp_path: Path) -> None:
    credit = {"post_training.reward.credit": "clip", "variants": {}, "ablations": {}}
    load_params(changed(tmp_path, credit | {"post_training.reward.view_weights": {"wrist": 2.0, "exterior_1": 0.0}}))
    with refused("post_training.reward.view_weights = wirst", "'wrist'"):
        load_params(changed(tmp_path, credit | {"post_training.reward.view_weights": {"wirst": 2.0}}))
    with refused("post_training.reward.view_weights.wrist = -1.0", 0):
        load_params(changed(tmp_path, credit | {"post_training.reward.view_weights": {"wrist": -1.0}}))
    none = dict.fromkeys(("exterior_1", "exterior_2", "wrist"), 0.0)
    with refused("post_training.reward.view_weights"):
        load_params(changed(tmp_path, credit | {"post_training.reward.view_weights": none}))
    parts = {f"post_training.reward.{name}": 0.0 for name in ("lpips", "ssim", "psnr")}
    with refused("post_training.reward.ssim = 0.0", "lpips", "psnr"):
        load_params(changed(tmp_path, credit | parts))


@pytest.mark.parametrize(("key", "value"), [("lpips", 0.5), ("target", "decoded")])
def test_what_a_reward_of_latents_does_not_look_at_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with refused(f"post_training.reward.{key} = {value}", "credit: latent"):
        load_params(changed(tmp_path, {"post_training.reward": {"credit": "latent", key: value}}))


def test_training_episodes_alone_need_no_split_to_evaluate(tmp_path: Path) -> None:
    load_params(changed(tmp_path, {"episodes.splits": ["train"]}))


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:7]])
def test_the_hub_wants_a_commit(tmp_path: Path, revision: str | None) -> None:
    hub = {"base_checkpoint.source": "hf", "base_checkpoint.location": "group/model"}
    load_params(changed(tmp_path, hub | {"base_checkpoint.revision": COMMIT}))
    with refused(f"base_checkpoint.revision = {revision}", "hf models info"):
        load_params(changed(tmp_path, hub | {"base_checkpoint.revision": revision}))


def test_a_digest_has_64_digits(tmp_path: Path) -> None:
    with refused("base_checkpoint.sha256.config.json = abc", 64):
        load_params(changed(tmp_path, {"base_checkpoint.sha256": {"config.json": "abc"}}))


def test_a_variant_may_be_empty_and_have_digits_in_its_name(tmp_path: Path) -> None:
    params = load_params(changed(tmp_path, {"variants": {"again_2": None}}))
    assert params.for_run("again_2").post_training == params.post_training


def test_a_variant_is_trained_only_where_its_training_differs(tmp_path: Path) -> None:
    """Another sampler of the rollouts reuses a checkpoint, also another variant's; a base, a seed or a history makes a new one."""
    ten = {"rollout": {"sampler": {"steps": 10}}}
    mild = {"post_training": {"beta": 0.5}}
    other = {"base_checkpoint": {"location": "elsewhere"}}
    variants = {
        "ten": ten | {"label": "Ten steps"}, "mild": mild, "mild_ten": mild | ten, "again": {"seed": 1},
        "looks_back": {"rollout": {"history_index": [0, 0, -12, -9, -6, -3]}}, "other": other, "other_mild": other | mild,
    }  # fmt: skip
    params = load_params(changed(tmp_path, {"variants": variants}))
    models, run = params.models, params.for_run("mild_ten")
    found = {name: (models[name].checkpoint, models[name].base) for name in variants}
    assert found == {
        "ten": ("post_trained", "base"), "mild": ("mild", "base"), "mild_ten": ("mild", "base"), "again": ("again", "base"),
        "looks_back": ("looks_back", "base"), "other": ("other", "other_base"), "other_mild": ("other_mild", "other_base"),
    }  # fmt: skip
    assert models.post_trainings == ["post_trained", "mild", "again", "looks_back", "other", "other_mild"]
    assert models.bases == {"other_base": "other"}
    assert (models["ten"].label, models["mild"].label) == ("Ten steps", "Variant mild")
    assert (run.post_training.beta, run.rollout.sampler.steps) == (0.5, 10)
    assert run.rollout.sampler == dataclasses.replace(params.rollout.sampler, steps=10)


def test_another_base_of_a_variant_does_not_inherit_the_digests(tmp_path: Path) -> None:
    base = {"source": "hf", "location": "group/a", "revision": COMMIT, "sha256": {"model.pt": "b" * 64}}
    variants = {"other": {"base_checkpoint": {"location": "group/b", "revision": "c" * 40}}, "same": {"post_training": {"beta": 0.5}}}
    params = load_params(changed(tmp_path, {"base_checkpoint": base, "variants": variants}))
    assert params.for_run("other").base_checkpoint.sha256 == {} and params.for_run("other").base_checkpoint.source == "hf"
    assert params.for_run("same").base_checkpoint == params.base_checkpoint


def test_models_are_in_the_order_of_the_tables(tmp_path: Path) -> None:
    models = load_params(changed(tmp_path, {"variants": {"b": {}, "a": {}}})).models
    assert models.names == ("copy_frame", "base", "teacher_forced", "own_history", "post_trained", "b", "a", "autoencoder")
    assert models.ordered(["autoencoder", "b", "base"]) == ["base", "b", "autoencoder"]
    assert models.of_role(models.names, "control", "base") == ["base", "teacher_forced", "own_history"]
    assert models.rolled_out(models.names) == ["base", "teacher_forced", "own_history", "post_trained", "b", "a"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe\x00seed", ("UTF-8", "byte 0")),
        (b"seed: 1\nseed: 2\n", ("seed",)),
        (b"evaluation: {episodes: 1, episodes: 2}\n", ("episodes",)),
        (b"- seed\n", ("list",)),
        (b"a:\n\t- b", ("YAML",)),
        (b"1: 2\n", (1,)),
    ],
)
def test_a_file_that_is_no_parameters_is_one_line(tmp_path: Path, content: bytes, named: tuple) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with refused(f"{path}: ", *named):
        load_params(path)


def test_a_folder_is_no_parameters(tmp_path: Path) -> None:
    with refused(f"{tmp_path}: "):
        load_params(tmp_path)


def leaves(section: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in section.items():
        if isinstance(value, dict) and value and key != "variants":
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def test_whatever_stands_at_a_key_is_taken_or_refused_in_one_line() -> None:
    """Every key with values of its own type at the edges and of others; nothing raises anything but UserError."""
    given = json.loads(json.dumps(dataclasses.asdict(load_params(PARAMS)) | {"variants": {}, "ablations": {}, "speed": {}}))
    numbers = [0, -1, 10**400, 0.0, -1.0, math.nan, math.inf]
    values = [*numbers, "", "bogus", None, True, [], [-1], [1, "a"], [[]], {}, {"x": 1}, {1: {"x": []}}]
    taken = []
    for path, usual in [*leaves(given)]:
        place = functools.reduce(operator.getitem, path[:-1], given)
        for value in values:
            place[path[-1]] = value
            try:
                params = build_section(Params, given, "")
                params.check()
            except UserError as error:
                assert "\n" not in str(error)
            else:
                taken.append((".".join(path), value))
                # What stages compare, hash and write down must be numbers.
                json.dumps(dataclasses.asdict(params), allow_nan=False)
        place[path[-1]] = usual
    assert ("seed", 0) in taken and ("post_training.candidates", -1) not in taken
