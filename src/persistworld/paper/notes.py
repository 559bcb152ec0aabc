"""The notes on every table and figure that say how its numbers were computed."""

from dataclasses import dataclass, field
from typing import Any

from persistworld.config.models import Models
from persistworld.config.params import Params
from persistworld.evaluation.score_table import Scores

MASKED_LPIPS = {
    "multiplied": "Masked LPIPS is the LPIPS of images that are black outside the mask.",
    "spatial": "Masked LPIPS is the mean of the spatial LPIPS map over the mask's pixels.",
}
CONVENTIONS = {
    "ctrl_world": "SSIM under a uniform {window}x{window} window with the sample covariance, without the border",
    "torchmetrics": "SSIM under a Gaussian 11x11 window (sigma 1.5) with the population covariance, with the border",
}
PROTOCOLS = {
    "decoded": "the ground truth as the autoencoder reconstructs it",
    "raw": "the recorded frames",
}


@dataclass(frozen=True)
class Settings:
    """How the numbers are computed and labelled. `protocol` is the headline protocol, `seed` is the seed of the bootstrap."""

    scale: str
    protocol: str
    seeds: tuple[int, ...]
    bootstrap: int = 2000
    confidence: float = 0.95
    seed: int = 0
    models: Models = field(default_factory=Models)


def settings_of(params: Params) -> Settings:
    """The settings given by the parameters."""
    paper = params.paper
    evaluation = params.evaluation
    return Settings(paper.scale, evaluation.protocol, evaluation.seeds, paper.bootstrap, paper.confidence, params.seed, params.models)


def footnotes(scores: Scores, settings: Settings) -> list[str]:
    """The notes that a reader needs to compare these numbers with others. Each note is a few sentences."""
    return [
        f"Scale: {settings.scale}. The results of this run were measured at this scale; the paper's numbers are at full scale.",
        _protocol(settings),
        metrics_note(scores.meta),
        "Masked SSIM and PSNR are taken over the mask's pixels. "
        f"{MASKED_LPIPS[scores.meta['masked_lpips']]} {mask_words(scores.meta)} {empty_masks(scores.meta['empty_masks'])}",
        _averaging(scores, settings),
        "Autoencoder (ceiling): the ground truth, encoded and decoded. The decoded protocol compares with these very frames, so its tables "
        "leave this row out.",
    ]


def short_note(scores: Scores, settings: Settings) -> str:
    """One line for the bottom of a figure."""
    seeds = ", ".join(map(str, settings.seeds))
    window = f" (SSIM window {scores.meta['ssim_window']})" if scores.meta["convention"] == "ctrl_world" else ""
    return (
        f"Scale: {settings.scale}  ·  {scores.frame['episode'].nunique()} episodes, seeds {seeds}  ·  {settings.protocol} ground truth  ·  "
        f"LPIPS backbone: {scores.meta['lpips_backbone']}  ·  convention: {scores.meta['convention']}{window}"
    )


def empty_masks(empty: dict[str, dict[str, int]]) -> str:
    """Text: how many frames have no masked score. Masks come from the ground truth, so the counts are the same for all models."""
    counts = next((counts for counts in empty.values() if counts), {})
    shown = ", ".join(f"{name.replace('.', ' in ')} {count}" for name, count in sorted(counts.items()) if count)
    return f"Frames without a masked score, because the mask is empty: {shown or 'none'}."


def mask_words(meta: dict[str, Any]) -> str:
    """Text: where the masks come from, and in how many episodes the instruction names no object."""
    masks = meta.get("masks")
    if masks is None:
        return "There are no masks, so Table 2 has no numbers of this run."
    text = f"Masks: {masks['source']}."
    for key, what in (("episodes_without_instruction", "no instruction"), ("episodes_without_noun", "an instruction without a noun")):
        if masks[key]:
            text += f" Episodes with {what}: {masks[key]} of {masks['episodes']}"
            text += "; their object is not masked." if masks["source"] == "roboengine" else "."
    return text


def _protocol(settings: Settings) -> str:
    headline, other = settings.protocol, next(name for name in PROTOCOLS if name != settings.protocol)
    return (
        f"Protocol: the headline numbers compare with {PROTOCOLS[headline]} ({headline}); a second table compares with {PROTOCOLS[other]} "
        f"({other}). Ctrl-World's evaluation code uses decoded ground truth."
    )


def metrics_note(meta: dict[str, Any]) -> str:
    """Text: the LPIPS network and the convention of SSIM and PSNR."""
    lpips = f"LPIPS backbone: {meta['lpips_backbone']}"
    if meta["lpips_backbone"] == "tabletop":
        lpips += ", a small network trained on the simulator's labels; compare changes with the paper's (AlexNet), not values"
    convention = CONVENTIONS[meta["convention"]].format(window=meta["ssim_window"])
    return f"{lpips}. Metric convention: {meta['convention']} ({convention}). PSNR is per frame and at most 60 dB."


def _averaging(scores: Scores, settings: Settings) -> str:
    seeds = ", ".join(map(str, settings.seeds))
    left_out = scores.meta.get("left_out", {"split": "", "too_short": 0})
    short = f" {left_out['too_short']} {left_out['split']} episodes are shorter than the rollout and left out."
    return (
        "Scores are averaged over frames, then views (external: all exterior views), then seeds "
        f"({seeds}; models without rollouts have one pass), then {scores.frame['episode'].nunique()} episodes. Brackets: "
        f"{settings.confidence:.0%} bootstrap interval over episodes ({settings.bootstrap} samples). Parentheses: change against the base, "
        "PSNR in dB."
        + (short if left_out["too_short"] else "")
    )
