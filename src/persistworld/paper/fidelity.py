"""What stands beside Table 1: the Frechet distances and the action following as printed tables, csv and plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from persistworld.config.models import Models
from persistworld.evaluation.fidelity import DECODED, RECORDED, Following
from persistworld.evaluation.frechet import KINDS
from persistworld.evaluation.pose_reader import QUANTITIES
from persistworld.evaluation.score_table import PROTOCOLS
from persistworld.paper.bands import mean_with_band
from persistworld.paper.blocks import p_text
from persistworld.paper.notes import PROTOCOLS as PROTOCOL_WORDS
from persistworld.paper.notes import Settings
from persistworld.paper.parts import Part, write_parts
from persistworld.paper.style import GRID, INK, MUTED, figure, save, title_and_note
from persistworld.paper.tables import write_text

TITLE = "Beside Table 1: Fréchet distances, and how well the arm follows its commands"
NAME = "fidelity"
FIGURE = "action_following"
QUANTITY_NAMES = {"position_cm": "Position (cm)", "rotation_degrees": "Rotation (degrees)", "gripper": "Gripper (0 to 1)"}
DIGITS = {"position_cm": 2, "rotation_degrees": 2, "gripper": 3}
READER_NAMES = {RECORDED: "Reader's own error: recorded frames", DECODED: "Reader's own error: their reconstruction"}
LINES = {RECORDED: (":", MUTED), DECODED: ("--", MUTED)}
NOTHING = "–"


def fidelity_parts(numbers: Mapping[str, Any], settings: Settings) -> list[Part]:
    """The printed tables. numbers: results/metrics/fidelity.json."""
    headline = settings.protocol
    order = [headline, *(name for name in PROTOCOLS if name != headline)]
    frechet = numbers["frechet"]
    parts = [_distances(frechet[protocol], protocol, numbers["features"], settings.models) for protocol in order if protocol in frechet]
    parts.insert(1, _differences(frechet[headline], headline, settings.models))
    following = numbers["action_following"]
    parts += [_overall(following["overall"], settings.models), _paired(following["paired"], settings.models)]
    parts.append(_by_chunk(following["chunks"], settings.models))
    return [part for part in parts if part.rows]


def _columns(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(kind, group) for kind in KINDS for group in tree[kind]]


def _distances(tree: Mapping[str, Any], protocol: str, features: str, models: Models) -> Part:
    columns = _columns(tree)
    head = [f"{group.capitalize()} {kind} ↓ ({tree[kind][group]['samples']} x {tree[kind][group]['size']})" for kind, group in columns]
    rows = []
    for model in models.ordered(tree[KINDS[0]][columns[0][1]]["models"]):
        found = [tree[kind][group]["models"][model] for kind, group in columns]
        rows.append([models[model].label, *(_with_error(each["distance"], each["standard_error"]) for each in found)])
    return Part(f"Fréchet distance to {PROTOCOL_WORDS[protocol]} ({protocol}), in the features of {features}", ["Model", *head], rows)


def _differences(tree: Mapping[str, Any], protocol: str, models: Models) -> Part:
    columns, rows = _columns(tree), []
    for model in models.ordered(tree[KINDS[0]][columns[0][1]]["models"]):
        found = [tree[kind][group]["models"][model] for kind, group in columns]
        if "minus_base" in found[0]:
            cells = [_with_error(each["minus_base"], each["minus_base_error"], sign="+") for each in found]
            rows.append([f"{models[model].label} − {models['base'].label}", *cells])
    caption = f"Difference of these distances from the base's ({protocol}; negative is better), with its standard error over episodes"
    return Part(caption, ["Models", *(f"{group.capitalize()} {kind}" for kind, group in columns)], rows)


def _with_error(value: float, error: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4g}" + ("" if error is None else f" ± {error:.2g}")


def _label(name: str, models: Models) -> str:
    return READER_NAMES.get(name) or models[name].label


def _ordered(names: Sequence[str] | Mapping[str, Any], models: Models) -> list[str]:
    return [name for name in READER_NAMES if name in names] + models.ordered(names)


def _overall(overall: Mapping[str, Any], models: Models) -> Part:
    rows = []
    for name in _ordered(overall, models):
        cells = []
        for quantity, digits in DIGITS.items():
            found = overall[name][quantity]
            cells.append(f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]")
        rows.append([_label(name, models), *cells])
    head = ["Frames of", *(f"{name} ↓" for name in QUANTITY_NAMES.values())]
    return Part("Action following: distance of the pose that is read from the frames to the commanded pose", head, rows)


def _paired(paired: Mapping[str, Any], models: Models) -> Part:
    rows = []
    for pair, tree in paired.items():
        ours, theirs = pair.rsplit("_vs_", 1)
        cells = []
        for quantity, digits in DIGITS.items():
            each = tree[quantity]
            interval = f"[{each['low']:+.{digits}f}, {each['high']:+.{digits}f}]"
            cells.append(f"{each['difference']:+.{digits}f} {interval}, {each['win_rate']:.0%}, p {p_text(each['wilcoxon_p'])}")
        rows.append([f"{models[ours].label} − {models[theirs].label}", *cells])
    caption = "Action following, paired by episode: difference (negative is better), share of better episodes, two-sided Wilcoxon p"
    return Part(caption, ["Models", *QUANTITY_NAMES.values()], rows)


def _by_chunk(chunks: Mapping[str, Any], models: Models) -> Part:
    rows = [[_label(name, models), *(f"{value:.2f}" for value in chunks[name]["position_cm"])] for name in _ordered(chunks, models)]
    head = ["Position (cm)", *(f"Chunk {number}" for number in range(1, len(rows[0])))]
    return Part("Action following by chunk: position", head, rows)


def fidelity_notes(numbers: Mapping[str, Any], settings: Settings) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    seeds, headline = ", ".join(map(str, settings.seeds)), numbers["frechet"][settings.protocol]
    notes = [
        f"Scale: {settings.scale}. {numbers['episodes']} episodes, seeds {seeds}. The first table's protocol is evaluation.protocol, as in "
        "Table 1.",
        f"Fréchet distances (torchmetrics): features of {numbers['features']}, its last map averaged over positions. In the heads: "
        "samples x numbers of a feature, of each view and seed; a distance is the mean over views and seeds. Compare it only with "
        "distances of the same network and of as many samples. ± is a standard error over episodes (delete-a-group jackknife)."
        + ("" if _has_errors(headline["frames"]) else " It is not computed for features of this size or so few episodes."),
        "Clips: the frames of a chunk and the one before. Their features are the mean of the frames' features, and the mean of the "
        "absolute differences of neighbouring frames' features. They stand in for a video network: this is not the FVD of I3D features.",
    ]
    counts = {kind: next(iter(groups.values())) for kind, groups in headline.items()}
    few = {kind: f"{kind} ({each['samples']} x {each['size']})" for kind, each in counts.items() if each["samples"] <= each["size"]}
    if few:
        notes.append(f"No more samples than numbers of a feature, so do not read these distances: {', '.join(few.values())}.")
    return [
        *notes,
        "Action following: a small network reads the arm's pose from all views of a frame. It learned from "
        f"{numbers['reader_frames']} recorded frames of training episodes, half of them passed through the autoencoder. Rollouts replay "
        "the recorded poses, so these are the commands. The reader's own error is measured on the recorded frames of the same held-out "
        "episodes. A model's distance contains it: read differences. Frame 0, the given one, is left out.",
        f"Brackets: {settings.confidence:.0%} bootstrap interval over episodes ({settings.bootstrap} samples). Means are over frames and "
        "seeds first.",
    ]


def _has_errors(groups: Mapping[str, Any]) -> bool:
    return all(found["standard_error"] is not None for tree in groups.values() for found in tree["models"].values())


def write_fidelity(numbers: Mapping[str, Any], parts: Sequence[Part], notes: Sequence[str], scale: str, folder: Path) -> None:
    """Write fidelity.{md,tex,csv}. The csv has one number a row."""
    write_parts(folder, NAME, TITLE, parts, notes, scale)
    rows = []
    for protocol, kinds in numbers["frechet"].items():
        for kind, groups in kinds.items():
            for group, tree in groups.items():
                for model, found in tree["models"].items():
                    names = {"score": "frechet_distance", "protocol": protocol, "of": kind, "view": group, "model": model}
                    rows.append(names | {"value": found["distance"], "samples": tree["samples"], "size": tree["size"], **found})
    for model, quantities in numbers["action_following"]["chunks"].items():
        overall = numbers["action_following"]["overall"][model]
        for quantity, means in quantities.items():
            found = overall[quantity]
            names = {"score": "action_following", "of": quantity, "model": model}
            rows.append(names | {"value": found["mean"], "low": found["low"], "high": found["high"]})
            rows += [names | {"chunk": number, "value": mean} for number, mean in enumerate(means, 1)]
    write_text(folder / f"{NAME}.csv", pd.DataFrame(rows).drop(columns="distance").to_csv(index=False, float_format="%.6g"))


def following_figure(following: Following, settings: Settings, folder: Path) -> None:
    """Write action_following.{png,pdf}: distances by chunk (top), and their paired difference from the base (bottom)."""
    known = settings.models
    shown = known.ordered(following)
    trained = [model for model in shown if known[model].checkpoint and model != "base"]
    chunks = np.arange(1, following[RECORDED].shape[1] + 1)
    with figure(2, len(QUANTITIES), 9.2, 4.9, sharex=True, height_ratios=(1.5, 1)) as (fig, axes):
        for place, quantity in enumerate(QUANTITIES):
            top, bottom = axes[0][place], axes[1][place]
            for name, (style, colour) in LINES.items():
                means = following[name][:, :, place].mean(axis=0)
                top.plot(chunks, means, linestyle=style, color=colour, linewidth=1.1, label=READER_NAMES[name])
            for model in shown:
                mean_with_band(top, chunks, following[model][:, :, place], model, settings)
            _limits(top, [following[name][:, :, place].mean(axis=0) for name in [*LINES, *known.rolled_out(shown)]])
            top.set_title(f"{QUANTITY_NAMES[quantity]} ↓")
            for model in trained if "base" in following else []:
                mean_with_band(bottom, chunks, (following[model] - following["base"])[:, :, place], model, settings)
            bottom.axhline(0, color=known["base"].colour if "base" in following else INK, linewidth=1.2)
            bottom.set_xlabel("Chunk of the rollout")
        axes[0][0].set_ylabel("From the commanded pose")
        axes[1][0].set_ylabel("Difference from base")
        for ax in (ax for row in axes for ax in row):
            ax.grid(axis="y", color=GRID, linewidth=0.6)
            ax.margins(x=0)
        handles, labels = axes[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="upper left", ncols=3, bbox_to_anchor=(0.005, 0.945), fontsize=8)
        fig.tight_layout(rect=(0, 0.055, 1, 0.84), h_pad=1.0)
        cut = "  ·  the copied frame is not shown where it is above the axes" if "copy_frame" in following else ""
        title_and_note(
            fig, "Action following: the pose read from the frames against the commanded one",
            f"Scale: {settings.scale}  ·  {len(following[RECORDED])} episodes, seeds {', '.join(map(str, settings.seeds))}\n"
            f"bands: {settings.confidence:.0%} bootstrap interval over episodes; lower row: paired differences{cut}",
        )  # fmt: skip
        save(fig, folder, FIGURE)


def _limits(ax: Axes, curves: Sequence[np.ndarray]) -> None:
    """Fit the axes to world models and reader; the copied frame may leave the axes."""
    low, high = min(curve.min() for curve in curves), max(curve.max() for curve in curves)
    margin = 0.12 * ((high - low) or 1.0)
    ax.set_ylim(low - margin, high + margin)
