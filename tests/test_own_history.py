"""The control own_history: its gradient, its compute, and that a killed run ends with the same bytes."""

import dataclasses

import pytest
import torch
from dying import DyingStore, Killed
from tiny import ROLLOUT, SAMPLER

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig, RewardConfig
from persistworld.config.training import OptimizerConfig, OwnHistoryConfig
from persistworld.post_training.cost import own_history_settings, own_history_steps, post_training_cost
from persistworld.post_training.groups import branch_candidates, empty_rollouts, plan_groups, roll_prefixes
from persistworld.post_training.own_history import accumulate_gradient, recorded_chunks, train_own_history
from persistworld.runtime.randomness import generator
from persistworld.training.policy import Policy

SETTINGS = PostTrainingConfig(
    steps=3, groups=2, candidates=4, keep=1, prefix=(0, 1), sampler=SAMPLER, loss_weighting="edm", weight_ema=0.9, old_ema_slope=0.25,
    reward=RewardConfig(credit="clip", target="decoded"), lora=AdapterConfig(rank=2, alpha=2.0),
    optimizer=OptimizerConfig(learning_rate=1e-3), precision="float32",
)  # fmt: skip
CONTROL = OwnHistoryConfig(kl_weight=0.5, optimizer=OptimizerConfig(learning_rate=1e-3))


def test_it_spends_what_post_training_spends():
    """By hand: a step of 2 groups has half a prefix and one sample of 2 sampler steps each, and one forward, one backward and the base's
    pass. Post-training (test_post_training) takes 3 * 2 * 19 evaluations."""
    assert post_training_cost(SETTINGS) == 3 * 2 * 19
    assert own_history_steps(SETTINGS, 0.5) == round(3 * 2 * 19 / (2 * (1.5 * 2 + 1 + 2 + 1)))
    assert own_history_steps(SETTINGS, 0.0) == round(3 * 2 * 19 / (2 * (1.5 * 2 + 1 + 2)))


def test_the_gradient_is_that_of_the_own_sample_against_the_truth(base, store, entries):
    """In one piece: the network sees its own noised sample, and the recorded chunk is the target. Parts of one sample give the same."""
    settings = own_history_settings(SETTINGS, CONTROL.kl_weight)
    policy = Policy(base, settings.lora, True, seed=0)
    with torch.no_grad():
        for weight in policy.theta.values():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    plan = plan_groups(entries, settings, 5, 0, 0, settings.groups)
    rollouts = empty_rollouts(base, settings, ROLLOUT)
    roll_prefixes(rollouts, store, plan, 0, 0)
    samples = branch_candidates(rollouts, store, plan, settings, 0, 0)
    truth = torch.stack([
        store.latents(entry.index, slice(first + 4 * prefix, first + 4 * prefix + 5))
        for entry, first, prefix in zip(plan.episodes, plan.first_rows, plan.prefixes, strict=True)
    ])  # fmt: skip
    assert torch.equal(recorded_chunks(store, plan), truth)

    def gradient(train_batch):
        for weight in policy.theta.values():
            weight.grad = None
        loss = accumulate_gradient(policy, samples, truth, plan.prefixes, settings, 0, 0, train_batch)
        return loss, torch.cat([weight.grad.flatten() for weight in policy.theta.values()])

    found, parts = gradient(16), gradient(1)
    for weight in policy.theta.values():
        weight.grad = None
    expected = torch.zeros(())
    for group in (0, 1):
        rng = generator(0, "noising", 0, group)
        sigma = torch.exp(settings.sigma_mean + settings.sigma_std * torch.randn((1,), generator=rng))
        noise = torch.randn(truth.shape[1:], generator=rng)
        context = samples.conditions[0].take(slice(group, group + 1))
        noised = samples.chunks[group : group + 1, 0, 0] + sigma * noise
        theta = policy.model.predict_x0(noised, sigma, policy.model.context(context))
        origin = policy.base.predict_x0(noised, sigma, policy.base.context(context))
        fit = (sigma**2 + 1) / sigma**2 * ((theta - truth[group]) ** 2).mean()
        expected = expected + (fit.sum() + CONTROL.kl_weight * ((theta - origin.detach()) ** 2).mean()) / 2
    expected.backward()
    by_hand = torch.cat([weight.grad.flatten() for weight in policy.theta.values()])
    scale = by_hand.abs().max().item()
    for loss, vector in (found, parts):
        assert loss == pytest.approx(expected.item(), rel=1e-4)
        torch.testing.assert_close(vector, by_hand, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("streams", [False, True])
def test_a_killed_run_ends_with_the_same_bytes(base, store, entries, latent_folder, tmp_path, streams):
    settings = dataclasses.replace(SETTINGS, streams=streams)

    def run(folder, store):
        compute = PostTrainingCompute(train_batch=1, save_every=1)
        return train_own_history(base, store, entries, settings, CONTROL, ROLLOUT, 3, 0, folder, "digest", compute)

    whole = run(tmp_path / "whole", store)
    with pytest.raises(Killed):
        run(tmp_path / "killed", DyingStore(latent_folder, 9))
    assert list((tmp_path / "killed").glob("state-*"))
    resumed = run(tmp_path / "killed", store)
    assert whole.keys() == resumed.keys() and all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    assert (tmp_path / "whole/log.csv").read_bytes() == (tmp_path / "killed/log.csv").read_bytes()
