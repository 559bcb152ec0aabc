"""Scores of generated frames: which rows there are, and their values against the public metrics."""

import itertools

import pytest
import torch
from refusals import refused
from safetensors.torch import save_file
from tiny import VIEWS

from persistworld.config.evaluation import MetricsConfig
from persistworld.evaluation.frame_metrics import masked_mean, psnr, psnr_of, squared_error_map, ssim, ssim_map
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.score_table import COLUMNS, load_scores, write_scores
from persistworld.evaluation.scores import BATCH, Scorer, Truth

T, H, W = 9, 16, 16


def film(seed: int, count: int = T) -> torch.Tensor:
    """Random frames, (count, V, H, W, 3) uint8."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, len(VIEWS), H, W, 3), generator=rng, dtype=torch.uint8)


def noisy(frames: torch.Tensor, amount: int, seed: int = 9) -> torch.Tensor:
    noise = torch.randint(-amount, amount + 1, frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames.int() + noise).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def truth() -> Truth:
    """Robot on the left, object at a corner; no object in two frames of the wrist view, none ever in exterior_2."""
    masks = torch.zeros(T, len(VIEWS), H, W, dtype=torch.uint8)
    masks[..., :6] = 1
    masks[:, :, 10:, 10:] = 2
    masks[:, 1][masks[:, 1] == 2] = 0
    masks[[0, 4], 2, 10:, 10:] = 0
    return Truth(episode=42, raw=film(0), decoded=noisy(film(0), 30), masks=masks)


def scorer(perceptual, masked_lpips: str = "multiplied") -> Scorer:
    return Scorer(perceptual, MetricsConfig(ssim_window=7, masked_lpips=masked_lpips), VIEWS)


def images(frames: torch.Tensor, frame: int, view: str) -> torch.Tensor:
    return frames[frame, VIEWS.index(view)].permute(2, 0, 1)[None].float() / 255


def value(table, **wanted) -> float:
    for name, wish in wanted.items():
        table = table[table[name] == wish]
    assert len(table) == 1
    return table["value"].item()


@pytest.mark.parametrize("masked_lpips", ["multiplied", "spatial"])
def test_a_perfect_copy(perceptual, truth, masked_lpips):
    """SSIM 1, PSNR at its ceiling, LPIPS 0 everywhere, in the protocol that it copies."""
    table = scorer(perceptual, masked_lpips).score({("m", 0): truth.decoded}, truth)
    copied = table[table["protocol"] == "decoded"].groupby("metric")["value"].agg(["min", "max"])
    assert copied.loc["ssim"].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert copied.loc["psnr"].tolist() == pytest.approx([60, 60], abs=1e-4)
    assert copied.loc["lpips"].tolist() == pytest.approx([0, 0], abs=1e-7)
    other = table[table["protocol"] == "raw"].groupby("metric")["value"].agg(["min", "max"])
    assert other.loc["ssim", "max"] < 1 and other.loc["psnr", "max"] < 40 and other.loc["lpips", "min"] > 0


@pytest.mark.parametrize("masked_lpips", ["multiplied", "spatial"])
def test_rows(perceptual, truth, masked_lpips):
    """One for every combination but those of empty masks; chunks of four frames, the given frame in the first."""
    table = scorer(perceptual, masked_lpips).score({("m", 0): film(1), ("m", 3): film(2)}, truth)
    assert not table["value"].isna().any() and not table.duplicated([c for c in COLUMNS if c != "value"]).any()
    counts = table.groupby(["region", "view"]).size() / (2 * 2 * 3)  # seeds, protocols, metrics
    assert counts["full"].tolist() == counts["robot"].tolist() == [T] * 3
    assert counts["object"].to_dict() == {"exterior_1": T, "wrist": T - 2}
    assert table.groupby("frame")["chunk"].first().tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert table["model"].unique().tolist() == ["m"] and table["episode"].unique().tolist() == [42]


def test_full_frame_values_are_the_public_metrics(perceptual, truth):
    rollouts = {0: noisy(truth.raw, 60, 1), 1: noisy(truth.raw, 10, 2)}
    table = scorer(perceptual).score({("m", seed): film for seed, film in rollouts.items()}, truth)
    places = ((0, "decoded", "wrist", 3), (1, "raw", "exterior_1", 8), (1, "decoded", "exterior_2", 0))
    for seed, protocol, view, frame in places:
        a, b = images(rollouts[seed], frame, view), images(getattr(truth, protocol), frame, view)
        where = {"seed": seed, "protocol": protocol, "view": view, "frame": frame, "region": "full"}
        assert value(table, metric="ssim", **where) == pytest.approx(ssim(a, b, 7).item(), abs=1e-5)
        assert value(table, metric="psnr", **where) == pytest.approx(psnr(a, b).item(), abs=1e-3)
        assert value(table, metric="lpips", **where) == pytest.approx(perceptual(2 * a - 1, 2 * b - 1).item(), rel=1e-4)


def test_masked_values_by_hand(perceptual, truth):
    """PSNR over the mask's pixels; LPIPS of images multiplied by the mask."""
    rollout = noisy(truth.raw, 60, 1)
    table = scorer(perceptual).score({("m", 0): rollout}, truth)
    a, b = images(rollout, 5, "wrist"), images(truth.raw, 5, "wrist")
    where = {"protocol": "raw", "view": "wrist", "frame": 5, "region": "object"}
    error = (a - b)[..., 10:, 10:].square().mean()
    assert value(table, metric="psnr", **where) == pytest.approx(-10 * error.log10().item(), abs=1e-3)
    mask = torch.zeros(H, W)
    mask[10:, 10:] = 1
    lpips = perceptual(2 * a * mask - 1, 2 * b * mask - 1).item()
    assert value(table, metric="lpips", **where) == pytest.approx(lpips, rel=1e-4)


def test_errors_outside_a_mask_do_not_count(perceptual, truth):
    rollout = truth.raw.clone()
    rollout[..., :6, :] = 255 - rollout[..., :6, :]  # the robot's columns alone
    table = scorer(perceptual).score({("m", 0): rollout}, truth)
    table = table[table["protocol"] == "raw"].groupby(["region", "metric"])["value"].agg(["min", "max"])
    assert table.loc[("object", "psnr"), "min"] == pytest.approx(60) and table.loc[("robot", "psnr"), "max"] < 15
    assert table.loc[("object", "lpips"), "max"] == pytest.approx(0, abs=1e-7)


def test_seeds_do_not_touch_each_other(perceptual, truth):
    both = scorer(perceptual).score({("m", 0): film(1), ("m", 3): film(2)}, truth)
    alone = scorer(perceptual).score({("m", 3): film(2)}, truth)
    kept = both[both["seed"] == 3].reset_index(drop=True)
    assert kept.drop(columns="value").equals(alone.reset_index(drop=True).drop(columns="value"))
    assert (kept["value"] - alone["value"].reset_index(drop=True)).abs().max() < 1e-4


def test_models_that_are_scored_together_have_the_scores_of_each_alone(perceptual, truth):
    """What they share, features and statistics of the ground truth, changes no value."""
    together = scorer(perceptual).score({("a", 0): film(1), ("b", -1): truth.decoded, ("b", 2): film(2)}, truth)
    for model, rollouts in {"a": {("a", 0): film(1)}, "b": {("b", -1): truth.decoded, ("b", 2): film(2)}}.items():
        alone = scorer(perceptual).score(rollouts, truth)
        assert together[together["model"] == model].reset_index(drop=True).equals(alone.reset_index(drop=True))


def test_without_masks_there_are_full_frames_only(perceptual, truth):
    table = scorer(perceptual).score({("m", 0): film(1)}, Truth(42, truth.raw, truth.decoded, None))
    assert table["region"].unique().tolist() == ["full"] and len(table) == T * 3 * 3 * 2


def test_empty_masks_are_counted(perceptual, truth):
    counted = scorer(perceptual)
    counted.count_empty(truth.masks)
    counted.count_empty(truth.masks[:1])
    assert {k: v for k, v in counted.empty_masks.items() if v} == {"object.exterior_2": T + 1, "object.wrist": 3}


def test_scores_fit_the_table(perceptual, truth, tmp_path):
    """What the stage writes, the readers of tables and figures take."""
    table = scorer(perceptual).score({("base", 0): film(1)}, truth)
    meta = {"lpips_backbone": "tabletop", "ssim_window": 7, "masked_lpips": "multiplied", "convention": "ctrl_world"}
    write_scores(tmp_path / "base.parquet", table, meta)
    assert len(load_scores([tmp_path / "base.parquet"]).frame) == len(table)


@pytest.mark.parametrize("masked_lpips", ["multiplied", "spatial"])
def test_every_value_is_the_public_metrics_one_frame_at_a_time(perceptual, masked_lpips):
    """Whatever is shared, over seeds, protocols and regions, and however frames are batched: all rows of some frames, to 1e-5."""
    count = BATCH + 3  # a whole batch and a part of one
    chosen = (0, 2, 4, BATCH - 1, BATCH, count - 1)
    raw, masks = film(0, count), torch.zeros(count, len(VIEWS), H, W, dtype=torch.uint8)
    masks[:, :, :, :6], masks[2:, :2, 9:, 9:] = 1, 2
    masks[4, 1] = 0
    truth = Truth(7, raw, noisy(raw, 30), masks)
    rollouts = {0: noisy(raw, 60, 1), 5: noisy(raw, 20, 2)}
    table = scorer(perceptual, masked_lpips).score({("m", seed): film for seed, film in rollouts.items()}, truth)
    expected = {}
    for seed, protocol, view, frame in itertools.product(rollouts, ("raw", "decoded"), VIEWS, chosen):
        a, b = images(rollouts[seed], frame, view), images(getattr(truth, protocol), frame, view)
        for region, label in {"full": None, "robot": 1, "object": 2}.items():
            mask = masks[frame, VIEWS.index(view)][None] == label
            if label and not mask.any():
                continue
            if label is None:
                found = ssim(a, b), psnr(a, b), perceptual(2 * a - 1, 2 * b - 1)
            else:
                if masked_lpips == "multiplied":
                    lpips = perceptual(2 * a * mask - 1, 2 * b * mask - 1)
                else:
                    features = (perceptual.features(2 * image - 1) for image in (a, b))
                    lpips = masked_mean(perceptual.spatial(*features, (H, W)), mask)
                found = masked_mean(ssim_map(a, b), mask), psnr_of(masked_mean(squared_error_map(a, b), mask)), lpips
            for metric, number in zip(("ssim", "psnr", "lpips"), found, strict=True):
                expected[seed, protocol, view, frame, region, metric] = number.item()
    values = table[table["frame"].isin(chosen)].set_index(["seed", "protocol", "view", "frame", "region", "metric"])["value"].to_dict()
    assert values.keys() == expected.keys()
    assert [values[key] for key in expected] == pytest.approx(list(expected.values()), rel=1e-5, abs=1e-5)


def test_rollouts_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused("data/rollouts/base/seed-0.safetensors", "--model base"):
        read_rollout("base", 0, 3)
    (tmp_path / "data/rollouts/base").mkdir(parents=True)
    save_file({"latents": torch.zeros(1, 5, 4, 12, 4), "episodes": torch.tensor([3])}, "data/rollouts/base/seed-0.safetensors")
    assert read_rollout("base", 0, 3).shape == (5, 4, 12, 4)
    with refused("data/rollouts/base/seed-0.safetensors", "episode 7"):
        read_rollout("base", 0, 7)
