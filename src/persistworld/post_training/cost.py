"""Counts the U-Net evaluations of post-training, so that each control gets the same compute."""

import dataclasses

from persistworld.config.post_training import PostTrainingConfig
from persistworld.post_training.groups import compared_share, longest_prefix

BACKWARD = 2  # a backward pass costs about two forward passes


def post_training_cost(settings: PostTrainingConfig) -> float:
    """U-Net evaluations (forward passes of one chunk) of the whole post-training: prefixes, branches and updates."""
    longest = [longest_prefix(settings, step) for step in range(settings.steps)]
    mean_prefix = 0.0 if settings.streams else (settings.prefix[0] + sum(longest) / len(longest)) / 2  # streams sample no prefixes
    passes = settings.sampler.steps * (1 + (settings.sampler.guidance > 1))
    sampled = (mean_prefix + settings.candidates * settings.branch) * passes
    reference = (not settings.old_is_theta) + compared_share(settings)
    updated = settings.kept * settings.branch * (1 + BACKWARD + reference)
    return settings.steps * settings.groups * (sampled + updated)


def control_steps(settings: PostTrainingConfig, batch: int) -> int:
    """Number of teacher-forced steps with `batch` windows that cost as many U-Net evaluations."""
    return max(1, round(post_training_cost(settings) / (batch * (1 + BACKWARD))))


def own_history_settings(settings: PostTrainingConfig, kl_weight: float) -> PostTrainingConfig:
    """Post-training's settings as `own_history` uses them: one sample per group, one chunk long, and no reference policy."""
    return dataclasses.replace(settings, candidates=1, keep=0, branch=1, kl_weight=kl_weight, old_ema_slope=0.0)


def own_history_steps(settings: PostTrainingConfig, kl_weight: float) -> int:
    """Number of steps of `own_history` that cost as many U-Net evaluations as the whole post-training."""
    per_step = post_training_cost(own_history_settings(settings, kl_weight)) / settings.steps
    return max(1, round(post_training_cost(settings) / per_step))
