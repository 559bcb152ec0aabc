"""The frames of an evaluated model: its rollouts, decoded; of a model without rollouts, made from the ground truth."""

from collections.abc import Sequence

from torch import Tensor

from persistworld.evaluation.rollout_files import read_rollout
from persistworld.world_model.autoencoder import Autoencoder, decode_views

NO_SEED = -1  # the seed of models without rollouts
# Models without a checkpoint: how their frames are made from the ground truth decoded by the autoencoder.
WITHOUT_ROLLOUTS = {
    "copy_frame": lambda decoded: decoded[:1].expand_as(decoded),
    "autoencoder": lambda decoded: decoded,
}


def generated_frames(
    model: str, episode: int, decoded: Tensor, seeds: Sequence[int], autoencoder: Autoencoder, views: int
) -> dict[tuple[str, int], Tensor]:
    """(model, seed) -> the model's uint8 frames (T, V, H, W, 3) of the episode. decoded: the episode's ground truth, of the same shape.

    Raises UserError when the rollouts are missing.
    """
    if model in WITHOUT_ROLLOUTS:
        return {(model, NO_SEED): WITHOUT_ROLLOUTS[model](decoded)}
    return {(model, seed): decode_views(autoencoder, read_rollout(model, seed, episode), views) for seed in seeds}
