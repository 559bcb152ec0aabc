"""Reads the rollouts that the stage `rollouts` writes: one file per model and seed, with all evaluation episodes."""

from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import rollout_path


def read_rollout(model: str, seed: int, episode: int) -> Tensor:
    """The stacked latents (T, C, V * h, w) float32 of one episode's rollout. Raises UserError when the file or the episode is missing."""
    path = rollout_path(model, seed)
    try:
        with safe_open(path, "pt") as file:
            episodes = file.get_tensor("episodes").tolist()
            if episode not in episodes:
                raise UserError(f"{path}: holds no rollout of episode {episode}; run the stage rollouts again")
            return file.get_slice("latents")[episodes.index(episode)].float()
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{path}: no readable rollouts ({error}); run the stage rollouts --model {model}") from None
