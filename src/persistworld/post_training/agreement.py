"""Measures, for each weight matrix, how well the gradients of different episodes agree.

Muon updates every matrix by the same amount, even if its gradient is noise. `lora.exclude` gives such modules no adapter.
docs/experiments.md ("Which weights learn") has the results on the tabletop and the effect on the scores.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.world_model import RolloutConfig
from persistworld.post_training.groups import branch_candidates, empty_rollouts, plan_groups, roll_prefixes
from persistworld.post_training.objective import nft_loss
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.trainer import Data, Kept, keep_candidates, score_groups
from persistworld.runtime.progress import track
from persistworld.world_model.model import WorldModel

DRAWS = 3  # draws of sigma and noise per group


@dataclass(frozen=True)
class Agreement:
    """Gradient agreement of one matrix or of several matrices.

    common: mean inner product between the gradients of two groups of different episodes; squared: mean squared norm of a group's gradient.
    common / squared is 1 if all episodes agree, and about 0 if the gradient is noise or specific to its episode.
    """

    name: str
    common: float
    squared: float
    weights: int

    @property
    def share(self) -> float:
        return self.common / self.squared if self.squared > 0 else 0.0


def agreements(
    base: WorldModel,
    reward_model: RewardModel,
    data: Data,
    settings: PostTrainingConfig,
    rollout: RolloutConfig,
    seed: int,
    groups: int,
    sample_batch: int = 0,
) -> list[Agreement]:
    """Agreement for each matrix of the U-Net and the action encoder, at the base's weights, over `groups` groups with their own prefixes.

    Memory: keeps the gradients of all groups, i.e. `groups` times the model's weights in float32.
    """
    settings = replace(settings, streams=False, precision="float32", kl_weight=0.0)
    plan = plan_groups(data.episodes, settings, base.config.future, seed, 0, groups)
    rollouts = empty_rollouts(base, settings, rollout, sample_batch)
    roll_prefixes(rollouts, data.store, plan, seed, 0)
    samples = branch_candidates(rollouts, data.store, plan, settings, seed, 0)
    rewards = score_groups(reward_model, data, plan, samples)
    draws = [keep_candidates(samples, rewards, settings, seed, number) for number in range(DRAWS)]
    named = {n: p for n, p in base.named_parameters() if p.ndim >= 2 and n.startswith(("unet.", "action_encoder."))}
    for parameter in named.values():
        parameter.requires_grad_(True)
    found: dict[str, list[Tensor]] = {name: [] for name in named}
    rows = torch.arange(len(draws[0].x0)).chunk(groups)
    for group in track(range(groups), groups, "gradients"):
        sum(group_loss(base, kept, rows[group], settings) for kept in draws).backward()
        for name, parameter in named.items():
            if parameter.grad is not None:  # one-token cross-attention does not use its query and key
                found[name].append(parameter.grad.flatten().clone())
                parameter.grad = None
    base.requires_grad_(False)
    episodes = torch.tensor([entry.index for entry in plan.episodes])
    others = episodes[:, None] != episodes
    return [agreement(name, torch.stack(gradients), others) for name, gradients in found.items() if gradients]


def group_loss(base: WorldModel, kept: Kept, rows: Tensor, settings: PostTrainingConfig) -> Tensor:
    """Eq. 2 on one group's `rows`, with the base as both theta and the reference."""
    x0, sigma = kept.x0[rows], kept.sigma[rows]
    x_sigma = x0 + sigma.reshape(-1, 1, 1, 1, 1) * kept.noise[rows]
    found = base.predict_x0(x_sigma, sigma, base.context(kept.condition.take(rows)))
    return nft_loss(found, found.detach(), x0, kept.r[rows], settings.beta, settings.loss_weighting, sigma).mean()


def agreement(name: str, gradients: Tensor, others: Tensor) -> Agreement:
    """gradients: (G, n), one row per group; others: (G, G), true where two groups have different episodes."""
    products = gradients @ gradients.T
    return Agreement(name, products[others].mean().item(), products.diagonal().mean().item(), gradients.shape[1])


def joined(found: list[Agreement], depth: int) -> list[Agreement]:
    """Merge matrices whose names share their first `depth` parts, in the order of first appearance."""
    parts: dict[str, list[Agreement]] = {}
    for each in found:
        parts.setdefault(".".join(each.name.split(".")[:depth]), []).append(each)
    return [
        Agreement(name, sum(m.common for m in of), sum(m.squared for m in of), sum(m.weights for m in of)) for name, of in parts.items()
    ]
