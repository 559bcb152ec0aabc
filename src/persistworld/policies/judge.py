"""The judge: reads from a rollout's frames how far it has come, in the same way for the simulator and for a world model.

For each frame, a small network predicts which stages hold and whether the object is visible. Progress is the number of stages that were
reached in order (paper, Table 12).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.views import images_to_float

WEIGHTS, CONFIG = "judge.safetensors", "judge.json"
WIDTHS = (24, 32, 48, 64)  # channels of the convolutions, each at half the size of the one before
HIDDEN = 96
WINDOW = 3  # frames of the median that takes out flickers
BATCH = 64  # frames


class JudgeNetwork(nn.Module):
    """A frame's views -> one logit per stage, and one for the visibility of the object."""

    def __init__(self, views: int, height: int, width: int, stages: int) -> None:
        super().__init__()
        self.size = (views, height, width)
        layers, previous = [], 3
        for channels in WIDTHS:
            layers += [nn.Conv2d(previous, channels, 3, stride=2, padding=1), nn.ReLU()]
            previous = channels
        self.convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            cells = self.convolutions(torch.zeros(1, 3, height, width)).numel()
        self.joined = nn.Sequential(
            nn.Linear(views * cells, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, stages + 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, V, 3, H, W) in [-1, 1]; returns logits (N, stages + 1)."""
        return self.joined(self.convolutions(images.flatten(0, 1)).reshape(len(images), -1))


@dataclass(frozen=True)
class Verdict:
    """A rollout's verdict. stages: (T, S) bool, the stages that hold in each frame; seen: (T,) bool, whether the object is visible."""

    stages: np.ndarray
    seen: np.ndarray

    @property
    def reached(self) -> int:
        """Number of stages reached in order."""
        return reached_in_order(self.stages)


class Judge:
    """Judges rollouts. stages: the names of the stages, in order."""

    def __init__(self, network: JudgeNetwork, stages: tuple[str, ...]) -> None:
        self.network, self.stages = network.eval().requires_grad_(False), stages

    def __call__(self, frames: np.ndarray) -> Verdict:
        """frames: (T, V, H, W, 3) uint8. Raises UserError for other views or sizes than in its training."""
        if frames.shape[1:4] != self.network.size:
            raise UserError(f"judge: trained on views of {self.network.size}, not {frames.shape[1:4]}; train another (docs/policies.md)")
        parts = torch.from_numpy(frames).split(BATCH)
        with torch.no_grad():
            logits = torch.cat([self.network(images_to_float(part)) for part in parts]).numpy()
        steady = smoothed(logits)
        return Verdict(steady[:, :-1] > 0, steady[:, -1] > 0)


def smoothed(values: np.ndarray) -> np.ndarray:
    """The running median over WINDOW frames of (T, ...); the ends are repeated."""
    half = WINDOW // 2
    padded = np.concatenate([values[:1]] * half + [values] + [values[-1:]] * half)
    return np.median(np.stack([padded[k : k + len(values)] for k in range(WINDOW)]), axis=0)


def reached_in_order(stages: np.ndarray) -> int:
    """How many of the stages (T, S) were reached in order: stage k counts only from the frame in which stage k - 1 was reached."""
    frame = 0
    for number, column in enumerate(np.asarray(stages, bool).T):
        later = np.flatnonzero(column[frame:])
        if not len(later):
            return number
        frame += int(later[0])
    return stages.shape[1]


def save_judge(judge: Judge, folder: Path) -> None:
    """Write weights (float16), sizes and stages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(judge.network.state_dict(), folder / WEIGHTS, half=True)
    sizes = dict(zip(("views", "height", "width"), judge.network.size, strict=True))
    write_json(folder / CONFIG, sizes | {"stages": list(judge.stages)})


def load_judge(folder: str | Path) -> Judge:
    """The judge of a folder that `save_judge` wrote. Raises UserError on missing or damaged files."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no judge is there; train it with persistworld policy-training --output assets (docs/policies.md)")
    raw = read_json(Path(folder) / CONFIG)
    try:
        stages = tuple(map(str, raw["stages"]))
        network = JudgeNetwork(*(int(raw[key]) for key in ("views", "height", "width")), len(stages))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{Path(folder) / CONFIG}: not a judge's ({error!r}); train it again (docs/policies.md)") from None
    load_weights(network, Path(folder) / WEIGHTS)
    return Judge(network, stages)


def judge_accuracy(judged: np.ndarray, truth: np.ndarray, names: tuple[str, ...]) -> dict[str, dict[str, float | int]]:
    """Accuracy of the judge on whole rollouts, for each stage: was it reached in order?

    judged, truth: (R, T, S) bool. Returns stage -> right (share of the rollouts), false (said to be reached, but was not), of_misses,
    missed, of_hits, frames (share of single frames in which the stage's label is right).
    """
    said, known = (np.array([reached_in_order(rollout) for rollout in labels]) for labels in (judged, truth))
    found = {}
    for number, name in enumerate(names, 1):
        claims, facts = said >= number, known >= number
        found[name] = {
            "right": float((claims == facts).mean()),
            "false": int((claims & ~facts).sum()), "of_misses": int((~facts).sum()),
            "missed": int((~claims & facts).sum()), "of_hits": int(facts.sum()),
            "frames": float((judged[..., number - 1] == truth[..., number - 1]).mean()),
        }  # fmt: skip
    return found
