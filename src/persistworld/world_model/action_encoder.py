"""Encodes poses and instruction into one condition token per frame, as in Ctrl-World."""

from torch import Tensor, nn


class ActionEncoder(nn.Module):
    """An MLP (three linear layers with SiLU) on each frame's normalised pose. The text embedding is tiled to the width and added."""

    def __init__(self, action_dim: int, width: int) -> None:
        super().__init__()
        self.action_encode = nn.Sequential(
            nn.Linear(action_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, poses: Tensor, text: Tensor | None = None) -> Tensor:
        """poses: (B, F, action_dim) in [-1, 1]; text: (B, E), where E divides the width, or None. Returns (B, F, width)."""
        tokens = self.action_encode(poses)
        if text is not None:
            tokens = tokens + text.repeat(1, tokens.shape[-1] // text.shape[-1])[:, None]
        return tokens
