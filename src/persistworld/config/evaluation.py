"""Parameters of scores, evaluation episodes, tables and figures."""

from dataclasses import dataclass
from typing import Literal

from persistworld.config.checks import at_least, distinct, require
from persistworld.config.models import FIXED

# The smallest height and width (pixels) that the networks' strides and poolings allow, found by experiment (test_params).
LPIPS_SMALLEST = {"alex": 31, "squeeze": 17, "vgg": 16, "tabletop": 1}


@dataclass(frozen=True)
class MetricsConfig:
    """How frames are scored (paper, section 4)."""

    lpips: Literal["alex", "vgg", "squeeze", "tabletop"] = "alex"  # tabletop: the small network shipped with the tabletop base checkpoint
    ssim_window: int = 7  # pixels; the uniform window of SSIM in the reward, and in the scores with the convention ctrl_world
    masked_lpips: Literal["multiplied", "spatial"] = "multiplied"

    def check(self) -> None:
        require(self.ssim_window % 2 == 1 and self.ssim_window >= 3, "metrics.ssim_window", self.ssim_window, "must be odd and at least 3")


@dataclass(frozen=True)
class EvaluationConfig:
    split: Literal["validation", "tuning"] = "validation"
    episodes: int = 0  # 0: all episodes of the split
    seeds: tuple[int, ...] = (0,)
    models: tuple[str, ...] = tuple(model.name for model in FIXED)
    protocol: Literal["decoded", "raw"] = "decoded"  # ground truth in the headline tables; both are always scored
    # How the scores compute SSIM and PSNR (evaluation/conventions.py). ctrl_world: as the paper; torchmetrics: that library's defaults.
    convention: Literal["ctrl_world", "torchmetrics"] = "ctrl_world"

    def check(self) -> None:
        require(self.episodes >= 0, "evaluation.episodes", self.episodes, "must be at least 1, or 0 for all of the split")
        require(len(self.seeds) >= 1, "evaluation.seeds", self.seeds, "give at least one seed")
        require(len(self.models) >= 1, "evaluation.models", self.models, "name at least one")
        distinct(self, "evaluation", "seeds", "models")
        narrow = all(-1 << 15 <= seed < 1 << 15 for seed in self.seeds)
        require(narrow, "evaluation.seeds", self.seeds, "the score table keeps 16 bits of a seed: choose from -32768 to 32767")

    def require_models(self, names: tuple[str, ...], purpose: str) -> None:
        """Raise UserError unless all of `names` are in `models`. `purpose` says what needs them; the tables do not."""
        lacking = [name for name in names if name not in self.models]
        fix = f"{purpose} compare {' with '.join(names)}: add {', '.join(lacking)}, or make only the tables"
        require(not lacking, "evaluation.models", ", ".join(self.models), fix)


@dataclass(frozen=True)
class PaperConfig:
    """Parameters of tables, figures and the report."""

    bootstrap: int = 2_000
    confidence: float = 0.95
    strip_frames: int = 8  # columns of Figure 3
    report_episodes: int = 4  # rollouts shown as videos in the report
    scale: str = "tabletop"  # printed on every table and figure

    def check(self) -> None:
        at_least(1, self, "paper", "bootstrap", "strip_frames")
        at_least(0, self, "paper", "report_episodes")
        require(0 < self.confidence < 1, "paper.confidence", self.confidence, "must lie between 0 and 1, e.g. 0.95")
