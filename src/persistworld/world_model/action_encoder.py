"""Poses and instruction to one condition token per frame (Ctrl-World's)."""

from torch import Tensor, nn


class ActionEncoder(nn.Module):
    """Linear, SiLU, Linear, SiLU, Linear on each frame's normalised pose; the text embedding is repeated to the width and added."""

    def __init__(self, action_dim: int, width: int) -> None:
        super().__init__()
        self.action_encode = nn.Sequential(
            nn.Linear(action_dim, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, poses: Tensor, text: Tensor | None = None) -> Tensor:
        """poses: (B, F, action_dim) in [-1, 1]; text: (B, E) with E dividing the width, or None. Returns (B, F, width)."""
        tokens = self.action_encode(poses)
        if text is not None:
            tokens = tokens + text.repeat(1, tokens.shape[-1] // text.shape[-1])[:, None]
        return tokens
