"""Rollouts as the stage `rollouts` writes them: one file for each model and seed, with all evaluation episodes."""

from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import rollout_path


def read_rollout(model: str, seed: int, episode: int) -> Tensor:
    """One episode's stacked latents (T, C, V * h, w) float32. Raises UserError when it is not there."""
    path = rollout_path(model, seed)
    try:
        with safe_open(path, "pt") as file:
            episodes = file.get_tensor("episodes").tolist()
            if episode not in episodes:
                raise UserError(f"{path}: holds no rollout of episode {episode}; run the stage rollouts again")
            return file.get_slice("latents")[episodes.index(episode)].float()
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{path}: no readable rollouts ({error}); run the stage rollouts --model {model}") from None
