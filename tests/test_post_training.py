"""Algorithm 1 as a whole: what a step does, and that a killed run ends with the same bytes."""

import dataclasses
import math

import pandas as pd
import pytest
import torch
from dying import DyingStore, Killed
from refusals import refused
from tiny import HISTORY_INDEX, ROLLOUT, SAMPLER, VIEWS

from persistworld.checkpoints.adapters import save_adapter
from persistworld.checkpoints.folders import save_world_model
from persistworld.config.compute import PostTrainingCompute
from persistworld.config.data import EpisodesConfig, LatentsConfig
from persistworld.config.params import Params
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig, RewardConfig
from persistworld.config.training import BaseTrainingConfig, ControlConfig, OptimizerConfig
from persistworld.data.windows import WindowSource
from persistworld.post_training.cost import control_steps, post_training_cost
from persistworld.post_training.groups import Samples, branch_candidates, compared_share, empty_rollouts, plan_groups, roll_prefixes
from persistworld.post_training.objective import reward_weights
from persistworld.post_training.rewards import RewardModel, Rewards
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data, keep_candidates, score_groups, train, update
from persistworld.training.control import train_control
from persistworld.training.optimizers import MatrixOptimizer
from persistworld.training.policy import Policy
from persistworld.training.run import provenance, state_folder, tied_by
from persistworld.training.state import drop_states, last_step, load_state, save_state
from persistworld.world_model.model import WorldModel

SETTINGS = PostTrainingConfig(
    steps=3,
    groups=2,
    candidates=4,
    keep=1,
    prefix=(0, 1),
    sampler=SAMPLER,
    loss_weighting="edm",
    weight_ema=0.9,
    old_ema_slope=0.25,
    reward=RewardConfig(credit="cell", target="decoded"),
    lora=AdapterConfig(rank=2, alpha=2.0),
    optimizer=OptimizerConfig(learning_rate=1e-3, decay_from=0.5),
    precision="float32",
)
COMPUTE = PostTrainingCompute(train_batch=3, save_every=1)
PREFIXES = (0, 1)  # of a step's two groups: the KL term counts all
CONTROL = ControlConfig(batch=3, optimizer=OptimizerConfig(learning_rate=1e-3))
TRAINING = BaseTrainingConfig(
    frame_skips=(1,),
    history_rule="buffer",
    precision="float32",
)


@pytest.fixture
def reward_model(autoencoder, perceptual):
    return RewardModel(autoencoder, perceptual, SETTINGS.reward, VIEWS, 7, "float32")


@pytest.fixture
def run(base, store, entries, reward_model):
    """run(folder, store, settings, digest) -> trained weights."""

    def start(folder, store=store, settings=SETTINGS, digest="digest", compute=COMPUTE):
        data = Data(store, entries, decoded_images(store, reward_model.decode))
        return train(base, reward_model, data, settings, ROLLOUT, 0, folder, digest, compute)

    return start


@pytest.fixture
def candidates(base, store, entries, reward_model):
    """A policy at its start, one step's samples and their rewards."""
    policy = Policy(base, SETTINGS.lora, True, seed=0)
    plan = plan_groups(entries, SETTINGS, 5, 0, 0, SETTINGS.groups)
    rollouts = empty_rollouts(base, SETTINGS, ROLLOUT)
    roll_prefixes(rollouts, store, plan, 0, 0)
    samples = branch_candidates(rollouts, store, plan, SETTINGS, 0, 0)
    data = Data(store, entries, decoded_images(store, reward_model.decode))
    return policy, samples, score_groups(reward_model, data, plan, samples)


def log_without_seconds(path) -> pd.DataFrame:
    log = pd.read_csv(path)
    return log[[c for c in log if not c.startswith("seconds_")]]


def checkpoint_bytes(weights, base, tmp_path, name) -> dict[str, bytes]:
    if not (tmp_path / "base").exists():
        save_world_model(base, tmp_path / "base")
    save_adapter(weights, base, tmp_path / "base", tmp_path / name, [SETTINGS], seed=0)
    return {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}


@pytest.mark.parametrize("streams", [False, True])
def test_a_killed_run_ends_with_the_same_bytes(base, run, latent_folder, tmp_path, streams):
    """3 steps == 2, a kill in the third, and 1 more. A stream of prefixes 0 and 1 is in its second step when it dies."""
    settings = dataclasses.replace(SETTINGS, streams=streams)
    whole = checkpoint_bytes(run(tmp_path / "whole", settings=settings), base, tmp_path, "a")
    with pytest.raises(Killed):
        run(tmp_path / "killed", DyingStore(latent_folder, 9), settings)  # reads of a step: 2 clips, and first frames
    assert len(log_without_seconds(tmp_path / "killed/log.csv")) == 2
    resumed = checkpoint_bytes(run(tmp_path / "killed", settings=settings), base, tmp_path, "b")
    assert whole == resumed and len(whole) == 4
    logs = [log_without_seconds(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert logs[0]["step"].tolist() == [0, 1, 2]
    states = [load_state(tmp_path / name, "digest") for name in ("whole", "killed")]
    for part in ("weights", "old", "average"):
        assert all(torch.equal(tensor, states[1][part][name]) for name, tensor in states[0][part].items())


def test_other_batches_go_on_with_a_half_done_run(base, run, latent_folder, tmp_path):
    """What `compute` says changes rounding at most: two steps of 3 candidates a pass, and one of 2, sampled 4 at a time."""
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", DyingStore(latent_folder, 9))
    other = PostTrainingCompute(train_batch=2, sample_batch=4, save_every=5, gradient_checkpointing=True)
    resumed = run(tmp_path / "killed", compute=other)
    log = log_without_seconds(tmp_path / "killed/log.csv")
    assert log["step"].tolist() == [0, 1, 2]
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-3, atol=1e-5)


def test_what_a_run_leaves(base, run, tmp_path):
    """The log's numbers, and old and average after d = 0, 0.25 (the reference) and 0, 1/2 (weights) of Algorithm 1."""
    settings = dataclasses.replace(SETTINGS, steps=1)
    run(tmp_path, settings=settings)
    first = load_state(tmp_path, "digest")
    assert all(torch.equal(first[part][n], w) for part in ("old", "average") for n, w in first["weights"].items())
    settings = dataclasses.replace(SETTINGS, steps=2)  # one step more
    weights = run(tmp_path, settings=settings)
    second = load_state(tmp_path, "digest")
    for name, theta in second["weights"].items():
        torch.testing.assert_close(second["old"][name], 0.25 * first["old"][name] + 0.75 * theta)
        torch.testing.assert_close(second["average"][name], 0.5 * first["average"][name] + 0.5 * theta)
        assert torch.equal(weights[name], second["average"][name])
    log = log_without_seconds(tmp_path / "log.csv")
    assert log["drift_old"][0] == log["drift_base"][0] == 0  # theta starts as both
    assert log["drift_base"][1] > 0 and (log["gradient_norm"] > 0).all()
    assert (log["reward_worst"] < log["reward_mean"]).all() and (log["reward_mean"] < log["reward_best"]).all()
    assert [p.name for p in tmp_path.glob("state-*")] == ["state-00000002.pt"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_finished_run_goes_on_with_more_steps(base, run, tmp_path, streams):
    """One step, then two more: the bytes of three at once, since the learning rate is constant."""
    constant = dataclasses.replace(SETTINGS, streams=streams, optimizer=OptimizerConfig(learning_rate=1e-3))
    whole = checkpoint_bytes(run(tmp_path / "whole", settings=constant), base, tmp_path, "a")
    folders = [state_folder(tmp_path / "run", steps, None) for steps in (1, 3)]
    assert folders[0] == folders[1]
    run(folders[0], settings=dataclasses.replace(constant, steps=1))
    assert state_folder(tmp_path / "run", 3, None) == folders[0]
    assert checkpoint_bytes(run(folders[0], settings=constant), base, tmp_path, "b") == whole


def test_a_run_that_cannot_go_on_has_a_folder_of_its_own(tmp_path, capsys):
    """With a schedule that depends on the number of steps, and with fewer steps than are done. One line tells of an earlier run."""
    first = state_folder(tmp_path / "tied", 100, "decay_from = 0.5")
    save_state(first, 100, "digest", {})
    drop_states(first)  # as when the checkpoint is written
    assert state_folder(tmp_path / "tied", 100, "decay_from = 0.5") == first
    assert capsys.readouterr().err == ""
    assert state_folder(tmp_path / "tied", 200, "decay_from = 0.5") != first
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "decay_from = 0.5" in line and "100" in line
    save_state(tmp_path / "constant", 100, "digest", {})
    assert state_folder(tmp_path / "constant", 50, None) != tmp_path / "constant" and last_step(tmp_path / "constant") == 100
    assert capsys.readouterr().err.count("\n") == 1


def test_what_the_trainings_schedules_depend_on():
    assert tied_by({"a": False, "b": True}) == "b" and tied_by({"a": False}) is None


def test_without_an_average_theta_itself_is_the_result(run, tmp_path):
    weights = run(tmp_path, settings=dataclasses.replace(SETTINGS, steps=1, weight_ema=0.0))
    theta = load_state(tmp_path, "digest")["weights"]
    assert all(torch.equal(w, theta[n]) for n, w in weights.items())


def test_other_parameters_are_not_resumed(run, tmp_path):
    save_state(tmp_path, 1, "another", {})
    with refused(tmp_path / "state-00000001.pt"):
        run(tmp_path)


def test_a_state_is_whole_or_not_there(tmp_path):
    save_state(tmp_path, 1, "digest", {"theta": torch.ones(3)})
    with pytest.raises(AttributeError):
        save_state(tmp_path, 2, "digest", {"theta": lambda: None})  # cannot be pickled: dies half-way
    assert [p.name for p in tmp_path.iterdir()] == ["state-00000001.pt"]
    assert load_state(tmp_path, "digest")["step"] == 1
    assert load_state(tmp_path / "empty", "digest") is None


def test_kept_candidates(candidates):
    """Best and worst of each group, with their own reward weights, conditions and noise."""
    _, samples, rewards = candidates
    kept = keep_candidates(samples, rewards, SETTINGS, seed=0, step=4)
    assert kept.x0.shape == (4, 5, 4, 12, 4) and kept.r.shape == (4, 5, 1, 12, 4)
    extremes = [sorted((r.clip.argmin().item(), r.clip.argmax().item())) for r in rewards]
    places = [(group, k) for group in (0, 1) for k in extremes[group]]
    for row, (group, k) in enumerate(places):
        assert torch.equal(kept.x0[row], samples.chunks[group, k, 0])
        assert torch.equal(kept.r[row], reward_weights(rewards[group].credit, SETTINGS.reward.epsilon, views=3)[k])
        assert torch.equal(kept.condition.poses[row], samples.conditions[0].poses[group * 4 + k])
        assert torch.equal(kept.condition.history[row], samples.conditions[0].history[group * 4 + k])
    assert len(set(kept.sigma.tolist())) == 4 and kept.noise.std().item() == pytest.approx(1, abs=0.1)
    again = keep_candidates(samples, rewards, SETTINGS, seed=0, step=4)
    assert torch.equal(again.sigma, kept.sigma) and torch.equal(again.noise, kept.noise)
    later = keep_candidates(samples, rewards, SETTINGS, seed=0, step=5)
    assert not torch.equal(later.sigma, kept.sigma)


def test_shared_noise_is_one_draw_a_group(candidates):
    _, samples, rewards = candidates
    shared = dataclasses.replace(SETTINGS, shared_noise=True, keep=0)
    kept = keep_candidates(samples, rewards, shared, 0, 0)
    assert len(kept.x0) == 8 and len(set(kept.sigma.tolist())) == 2
    assert torch.equal(kept.noise[0], kept.noise[3]) and not torch.equal(kept.noise[0], kept.noise[4])


def test_a_clip_reward_reaches_every_chunk_of_the_candidate(candidates):
    """F = 2: one reward a candidate; per frame, each chunk gets its own frames' part."""
    _, samples, _ = candidates
    twice = Samples(samples.chunks.repeat(1, 1, 2, 1, 1, 1, 1), samples.conditions * 2)
    clip = torch.tensor([0.0, 1.0, 2.0, 3.0])
    frames = clip[:, None] * torch.cat([torch.ones(5), -torch.ones(5)])  # the order is the other way round in chunk 2
    keep_all = dataclasses.replace(SETTINGS, keep=0)
    by_clip = [Rewards(clip, clip.reshape(4, 1, 1, 1, 1), views=1)] * 2
    by_frame = [Rewards(clip, frames.reshape(4, 10, 1, 1, 1).expand(-1, -1, -1, 12, -1), views=3)] * 2
    r = reward_weights(clip, 1e-4)
    found = keep_candidates(twice, by_clip, keep_all, 0, 0)
    assert found.r.shape == (16, 5, 1, 1, 1) and torch.equal(found.r[:8, 0, 0, 0, 0], r.repeat_interleave(2))
    found = keep_candidates(twice, by_frame, keep_all, 0, 0)
    torch.testing.assert_close(found.r[:8, 2, 0, 3, 0], torch.stack([r, r.flip(0)], dim=1).flatten())


def gradients(policy: Policy, samples, rewards, settings, train_batch=3) -> torch.Tensor:
    for weight in policy.theta.values():
        weight.grad = None
    update(policy, samples, rewards, PREFIXES, settings, 0, 0, train_batch)
    return torch.cat([w.grad.flatten() for w in policy.theta.values()])


def test_the_gradient_does_not_depend_on_the_size_of_a_part(candidates):
    """Accumulated over parts of 1, 3 (with a rest) or all 8; with the KL term, too."""
    policy, samples, rewards = candidates
    with torch.no_grad():
        for weight in policy.theta.values():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    settings = dataclasses.replace(SETTINGS, keep=0, kl_weight=0.5)
    found = [gradients(policy, samples, rewards, settings, n) for n in (1, 3, 16)]
    scale = found[0].abs().max().item()
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4 * scale)
    torch.testing.assert_close(found[2], found[0], rtol=1e-3, atol=1e-4 * scale)


def test_the_kl_term_is_of_short_prefixes(candidates, monkeypatch):
    """Of two groups of 4, in parts of 3, the second, with its prefix of 0: the mean distance by hand, and as many forward passes of the
    base. Without a KL term, and where both prefixes are longer, the first candidate's distance is logged, and nothing added."""
    policy, samples, rewards = candidates
    with torch.no_grad():
        for weight in policy.theta.values():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    settings = dataclasses.replace(SETTINGS, keep=0, kl_weight=0.5)
    kept = keep_candidates(samples, rewards, settings, 0, 1)
    x_sigma = kept.x0 + kept.sigma.reshape(-1, 1, 1, 1, 1) * kept.noise
    with torch.no_grad():
        theta, origin = (m.predict_x0(x_sigma, kept.sigma, m.context(kept.condition)) for m in (policy.model, policy.base))
    distances = (theta - origin).square().flatten(1).mean(dim=1)
    seen, predict = [], WorldModel.predict_x0
    monkeypatch.setattr(WorldModel, "predict_x0", lambda model, x, *rest: seen.append((model, len(x))) or predict(model, x, *rest))
    settings = dataclasses.replace(settings, kl_prefix=0)
    found = update(policy, samples, rewards, (1, 0), settings, 0, 1, 3)
    without = update(policy, samples, rewards, (1, 0), dataclasses.replace(settings, kl_weight=0.0), 0, 1, 3)
    assert found.drift_base == pytest.approx(distances[4:].mean().item(), rel=1e-3)
    assert found.loss - without.loss == pytest.approx(0.5 * found.drift_base, rel=1e-3)
    assert without.drift_base == pytest.approx(distances[0].item(), rel=1e-3)
    assert update(policy, samples, rewards, (1, 1), settings, 0, 1, 3) == without
    assert sum(count for model, count in seen if model is policy.base) == 4 + 1 + 1


def test_checkpointing_changes_no_gradient(base, candidates):
    """Activations are computed a second time instead of being kept."""
    policy, samples, rewards = candidates
    slim = Policy(base, SETTINGS.lora, True, seed=0, compute=PostTrainingCompute(gradient_checkpointing=True))
    assert slim.model.unet.is_gradient_checkpointing and not slim.base.unet.is_gradient_checkpointing
    expected, found = (gradients(p, samples, rewards, SETTINGS) for p in (policy, slim))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_rewards_turned_round_turn_the_first_gradient_round(candidates):
    """At theta = old the gradient is proportional to 2r - 1."""
    policy, samples, rewards = candidates
    turned = [Rewards(r.clip, -r.credit, r.views) for r in rewards]
    settings = dataclasses.replace(SETTINGS, keep=0)
    there, back = (gradients(policy, samples, r, settings) for r in (rewards, turned))
    assert there.abs().max() > 0
    torch.testing.assert_close(there, -back, rtol=1e-3, atol=1e-4 * there.abs().max().item())


def test_a_reference_that_is_theta_needs_no_pass_of_its_own(candidates, monkeypatch):
    """`old_ema_slope` 0: with old a copy of theta, the same gradient from a U-Net pass less for each part."""
    policy, samples, rewards = candidates
    with torch.no_grad():
        for name, weight in policy.theta.items():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
            policy.old[name].copy_(weight)
    passes, predict = [], WorldModel.predict_x0
    monkeypatch.setattr(WorldModel, "predict_x0", lambda *inputs: passes.append(1) or predict(*inputs))
    expected = gradients(policy, samples, rewards, dataclasses.replace(SETTINGS, kl_weight=0.5))
    with_old = len(passes)
    for same in ({"old_ema_slope": 0.0}, {"old_ema_max": 0.0}):
        passes.clear()
        found = gradients(policy, samples, rewards, dataclasses.replace(SETTINGS, kl_weight=0.5, **same))
        assert len(passes) == with_old * 2 // 3
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_steps_on_one_batch_lower_its_loss(candidates):
    policy, samples, rewards = candidates
    optimizer = MatrixOptimizer(policy.theta.values(), OptimizerConfig(learning_rate=3e-3))
    losses = []
    for _ in range(3):
        losses.append(update(policy, samples, rewards, PREFIXES, SETTINGS, 0, 0, 3).loss)
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]


def test_the_control_spends_what_post_training_spends():
    """By hand: 3 steps of 2 groups; a prefix of 0.5 chunks and 4 candidates of 1, 2 sampler steps each; 2 kept, each
    one forward, one backward (2), and forwards of old and base. A teacher-forced step: 3 windows, forward and backward.
    """
    assert post_training_cost(SETTINGS) == 3 * 2 * ((0.5 + 4) * 2 + 2 * (1 + 2 + 2))
    assert control_steps(SETTINGS, CONTROL.batch) == round(3 * 2 * 19 / 9)
    everything = dataclasses.replace(SETTINGS, keep=0, branch=2, kl_weight=0.0)
    assert post_training_cost(everything) == 3 * 2 * ((0.5 + 8) * 2 + 8 * (1 + 2 + 1))
    assert post_training_cost(dataclasses.replace(everything, old_ema_slope=0.0)) == 3 * 2 * ((0.5 + 8) * 2 + 8 * (1 + 2))
    # Prefixes are 0 or 1: half of the samples are compared with the base. Under a curriculum (up to 2, 4, 6) fewer and fewer.
    assert post_training_cost(dataclasses.replace(SETTINGS, kl_prefix=0)) == 3 * 2 * ((0.5 + 4) * 2 + 2 * (1 + 2 + 1.5))
    growing = dataclasses.replace(SETTINGS, prefix=(0, 6), prefix_schedule="curriculum", kl_prefix=2)
    assert compared_share(growing) == pytest.approx((1 + 3 / 5 + 3 / 7) / 3)


def test_the_control_counts_guidance_and_the_curriculum():
    """Guidance samples in two forwards a step. A curriculum of 3 steps up to 6 has longest prefixes of 2, 4 and 6."""
    guided = dataclasses.replace(SETTINGS, sampler=dataclasses.replace(SETTINGS.sampler, guidance=2.0))
    assert post_training_cost(guided) - post_training_cost(SETTINGS) == 3 * 2 * (0.5 + 4) * 2
    growing = dataclasses.replace(SETTINGS, prefix=(0, 6), prefix_schedule="curriculum")
    even = dataclasses.replace(SETTINGS, prefix=(0, 4))
    assert post_training_cost(growing) == post_training_cost(even)
    small = dataclasses.replace(SETTINGS, steps=1, groups=1, candidates=2, keep=0)
    assert control_steps(small, 1000) == 1


def test_a_run_is_never_resumed_on_other_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("checkpoints/base/world_model.safetensors", "checkpoints/base/autoencoder.safetensors", "data/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    before = provenance(Params(), "stages.post_training", SETTINGS)
    assert provenance(Params(), "stages.post_training", SETTINGS) == before
    assert provenance(Params(latents=LatentsConfig(posterior="mean")), "stages.post_training", SETTINGS) != before
    assert provenance(Params(episodes=EpisodesConfig(height=40)), "stages.post_training", SETTINGS) != before
    (tmp_path / "checkpoints/base/autoencoder.safetensors").write_text("another")
    assert provenance(Params(), "stages.post_training", SETTINGS) != before


def test_the_control_accumulates_its_gradient(base, windows, tmp_path):
    """Its batch of 3 windows at once, or 1 a backward pass."""
    found = []
    for part in (3, 1):
        settings, compute = dataclasses.replace(SETTINGS, steps=1), PostTrainingCompute(train_batch=part)
        steps, folder = control_steps(settings, CONTROL.batch), tmp_path / str(part)
        train_control(base, windows, settings, TRAINING, CONTROL, steps, 0, folder, "digest", compute)
        found.append(pd.read_csv(tmp_path / str(part) / "log.csv"))
    pd.testing.assert_frame_equal(*found, rtol=1e-3)


def test_the_controls_rate_is_its_own(base, windows, tmp_path):
    """Its one step is ten times as long at ten times its rate, and the same at ten times post-training's."""
    found = {}
    for own, other in ((1e-3, 1e-3), (1e-2, 1e-3), (1e-3, 1e-2)):
        control = ControlConfig(batch=12, optimizer=OptimizerConfig(learning_rate=own))
        settings = dataclasses.replace(SETTINGS, steps=1, optimizer=OptimizerConfig(learning_rate=other))
        assert control_steps(settings, control.batch) == 1
        folder = tmp_path / f"{own}-{other}"
        weights = train_control(base, windows, settings, TRAINING, control, 1, 0, folder, "digest")
        found[own, other] = weights["action_encoder.action_encode.0.weight"]
    start = base.state_dict()["action_encoder.action_encode.0.weight"]
    assert torch.equal(found[1e-3, 1e-3], found[1e-3, 1e-2])
    torch.testing.assert_close(found[1e-2, 1e-3] - start, 10 * (found[1e-3, 1e-3] - start), rtol=1e-3, atol=1e-6)


def test_a_killed_control_ends_with_the_same_bytes(base, store, entries, latent_folder, tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=1)
    steps = control_steps(settings, CONTROL.batch)
    assert steps == 4

    def run(folder, store, digest="digest"):
        windows = WindowSource(store, entries, HISTORY_INDEX)
        return train_control(base, windows, settings, TRAINING, CONTROL, steps, 0, folder, digest, COMPUTE)

    whole = run(tmp_path / "whole", store)
    with pytest.raises(Killed):
        run(tmp_path / "killed", DyingStore(latent_folder, 2 * 6 + 1))  # a step reads 3 histories and 3 futures
    assert load_state(tmp_path / "killed", "digest")["step"] == 2
    resumed = run(tmp_path / "killed", store)
    assert whole.keys() == resumed.keys() and all(torch.equal(w, resumed[n]) for n, w in whole.items())
    assert (tmp_path / "whole/log.csv").read_bytes() == (tmp_path / "killed/log.csv").read_bytes()
    log = pd.read_csv(tmp_path / "whole/log.csv")
    assert log["step"].tolist() == [0, 1, 2, 3] and all(map(math.isfinite, log["loss"]))
    with refused(tmp_path / "killed"):
        run(tmp_path / "killed", store, "another")
