"""A model's mean over episodes as a line, with its bootstrap interval as a band (Figures 5 and 11, and the figure of action following)."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from persistworld.paper.notes import Settings

SAMPLES = 500  # a band needs fewer than a table


def mean_with_band(ax: Axes, places: NDArray, values: NDArray[np.float64], model: str, settings: Settings) -> None:
    """Draw the mean over episodes of `values` (episodes, n) against `places` (n,), in the model's colour.

    A model with a checkpoint gets a thicker line, and a band: the percentile interval of the means of resampled episodes. All places share
    the resamples. NaN is left out.
    """
    shown = settings.models[model]
    if shown.checkpoint:
        samples = min(settings.bootstrap, SAMPLES)
        picks = np.random.default_rng(settings.seed).integers(len(values), size=(samples, len(values)))
        tail = (1 - settings.confidence) / 2
        low, high = np.nanquantile(np.nanmean(values[picks], axis=1), [tail, 1 - tail], axis=0)
        ax.fill_between(places, low, high, color=shown.colour, alpha=0.16, linewidth=0)
    ax.plot(
        places, np.nanmean(values, axis=0), color=shown.colour, linewidth=1.7 if shown.checkpoint else 1.1,
        linestyle=shown.dashes, label=shown.label,
    )  # fmt: skip
