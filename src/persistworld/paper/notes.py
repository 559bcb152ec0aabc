"""What every table and figure must say about how its numbers were made."""

from dataclasses import dataclass
from typing import Any

from persistworld.config.params import Params
from persistworld.evaluation.score_table import Scores

DECODED = "the evaluation code of the base model's authors does so"
MASKED_LPIPS = {
    "multiplied": "of images multiplied by the mask (black outside)",
    "spatial": "as the mean of the spatial LPIPS map over the mask's pixels",
}


@dataclass(frozen=True)
class Settings:
    """How the numbers are to be computed and labelled. `protocol` is the headline, `seed` the bootstrap's."""

    scale: str
    protocol: str
    seeds: tuple[int, ...]
    bootstrap: int = 2000
    confidence: float = 0.95
    seed: int = 0


def settings_of(params: Params) -> Settings:
    """The settings that the parameters ask for."""
    paper = params.paper
    evaluation = params.evaluation
    return Settings(paper.scale, evaluation.protocol, evaluation.seeds, paper.bootstrap, paper.confidence, params.seed)


def footnotes(scores: Scores, settings: Settings) -> list[str]:
    """What a reader must know to compare these numbers with others, a sentence or two each."""
    return [
        f"Scale: {settings.scale}. Real results of real learning at this scale; the paper's numbers are full scale.",
        _protocol(settings),
        _metrics(scores.meta),
        f"Masked SSIM and PSNR average over the mask's pixels; masked LPIPS is taken "
        f"{MASKED_LPIPS[scores.meta['masked_lpips']]}. {mask_words(scores.meta)} {empty_masks(scores.meta['empty_masks'])}",
        _averaging(scores, settings),
        "Autoencoder: decoded ground truth, the ceiling. Under the decoded protocol it is the reference, and left out.",
    ]


def short_note(scores: Scores, settings: Settings) -> str:
    """One line for the foot of a figure."""
    seeds = ", ".join(map(str, settings.seeds))
    return (
        f"Scale: {settings.scale}  ·  {scores.frame['episode'].nunique()} episodes, seeds {seeds}  ·  scored against "
        f"{settings.protocol} ground truth  ·  LPIPS backbone: {scores.meta['lpips_backbone']}  ·  SSIM window "
        f"{scores.meta['ssim_window']}"
    )


def empty_masks(empty: dict[str, dict[str, int]]) -> str:
    """How many frames had no masked value. Masks come from the ground truth: any one model's counts are everyone's."""
    counts = next((counts for counts in empty.values() if counts), {})
    shown = ", ".join(f"{name.replace('.', ' in ')} {count}" for name, count in sorted(counts.items()) if count)
    return f"Frames left out for an empty mask: {shown or 'none'}."


def mask_words(meta: dict[str, Any]) -> str:
    """Where the masks are from, and how many episodes gave nothing to ask for as the object."""
    masks = meta.get("masks")
    if masks is None:
        return "No masks: Table 2 has no numbers of this run."
    text = f"Masks: {masks['source']}."
    for key, what in (("episodes_without_instruction", "no instruction"), ("episodes_without_noun", "an instruction without a noun")):
        if masks[key]:
            text += f" Episodes with {what}: {masks[key]} of {masks['episodes']}"
            text += ", whose object is not masked." if masks["source"] == "roboengine" else "."
    return text


def _protocol(settings: Settings) -> str:
    if settings.protocol == "decoded":
        return (
            f"Protocol: the headline compares with autoencoder-decoded ground truth (decoded), because {DECODED}; the "
            "comparison with the recorded frames (raw) is printed beside it."
        )
    return (
        "Protocol: the headline compares with the recorded frames (raw), as the parameters ask; decoded is printed "
        f"beside it ({DECODED})."
    )


def _metrics(meta: dict[str, Any]) -> str:
    lpips = f"LPIPS backbone: {meta['lpips_backbone']}"
    if meta["lpips_backbone"] == "tabletop":
        lpips += ", a small network trained on the simulator's labels: compare changes with the paper's, not levels"
    window = meta["ssim_window"]
    return f"{lpips}. SSIM: uniform {window}x{window} window, sample covariance. PSNR: at most 60 dB a frame."


def _averaging(scores: Scores, settings: Settings) -> str:
    seeds = ", ".join(map(str, settings.seeds))
    left_out = scores.meta.get("left_out", {"split": "", "too_short": 0})
    short = f" Left out: {left_out['too_short']} {left_out['split']} episodes that are shorter than the rollout."
    return (
        f"Mean over frames, then views (external: all exterior views), then seeds ({seeds}; baselines without noise: "
        f"one pass), then {scores.frame['episode'].nunique()} episodes. Brackets: {settings.confidence:.0%} bootstrap "
        f"interval over episodes ({settings.bootstrap} samples). Changes are against base, PSNR in dB."
        + (short if left_out["too_short"] else "")
    )
