"""What stands beside Table 1: the Frechet distances and the action following as printed tables, csv and plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from persistworld.config.models import Models
from persistworld.evaluation.fidelity import AGAINST, COMMAND, DECODED, READING, RECORDED, Following
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
DIGITS = {"position_cm": 3, "rotation_degrees": 2, "gripper": 3}
READER_NAMES = {
    COMMAND: {RECORDED: "Reader's own error: recorded frames", DECODED: "Reader's own error: their reconstruction"},
    READING: {RECORDED: "Recorded frames, not reconstructed"},
}
CAPTIONS = {
    COMMAND: "Action following: distance of the pose that is read from the frames to the commanded pose",
    READING: "Action following: distance of the pose that is read from the frames to the one read from the recorded frames",
}
AXES = {COMMAND: "From the commanded pose", READING: "From the recording's reading"}
LINES = {RECORDED: (":", MUTED), DECODED: ("--", MUTED)}
LEGEND = {RECORDED: "Recorded frames", DECODED: "Their reconstruction (the reader's own error)"}


def fidelity_parts(numbers: Mapping[str, Any], settings: Settings) -> list[Part]:
    """The printed tables. numbers: results/metrics/fidelity.json."""
    headline = settings.protocol
    order = [headline, *(name for name in PROTOCOLS if name != headline)]
    frechet = numbers["frechet"]
    parts = [_distances(frechet[protocol], protocol, numbers["features"], settings.models) for protocol in order if protocol in frechet]
    parts.insert(1, _differences(frechet[headline], headline, settings.models))
    for against in AGAINST:
        following = numbers["action_following"][against]
        parts += [_overall(following, against, settings.models), _paired(following["paired"], against, settings.models)]
        parts.append(_by_chunk(following, against, settings.models))
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


def _labels(names: Mapping[str, Any], against: str, models: Models) -> dict[str, str]:
    """name -> label of the rows, in their order."""
    readers = {name: label for name, label in READER_NAMES[against].items() if name in names}
    return readers | {name: models[name].label for name in models.ordered(names)}


def _overall(following: Mapping[str, Any], against: str, models: Models) -> Part:
    rows = []
    for name, label in _labels(following["overall"], against, models).items():
        cells = []
        for quantity, digits in DIGITS.items():
            found = following["overall"][name][quantity]
            cells.append(f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]")
        rows.append([label, *cells])
    return Part(CAPTIONS[against], ["Frames of", *(f"{name} ↓" for name in QUANTITY_NAMES.values())], rows)


def _paired(paired: Mapping[str, Any], against: str, models: Models) -> Part:
    rows = []
    for pair, tree in paired.items():
        cells = []
        for quantity, digits in DIGITS.items():
            each = tree[quantity]
            change = _change(each["difference"], each, digits)
            cells.append(f"{change}, {each['win_rate']:.0%}, p {p_text(each['wilcoxon_p'])}")
        rows.append([_pair_label(pair, models), *cells])
    caption = f"{CAPTIONS[against]}; paired by episode: difference (negative is better), share of better episodes, two-sided Wilcoxon p"
    return Part(caption, ["Models", *QUANTITY_NAMES.values()], rows)


def _pair_label(pair: str, models: Models) -> str:
    ours, theirs = pair.rsplit("_vs_", 1)
    return f"{models[ours].label} − {models[theirs].label}"


def _change(value: float, interval: Mapping[str, float], digits: int) -> str:
    return f"{value:+.{digits}f} [{interval['low']:+.{digits}f}, {interval['high']:+.{digits}f}]"


def _by_chunk(following: Mapping[str, Any], against: str, models: Models) -> Part:
    """Of the position alone: a row per chunk, a column per model and per difference from the base."""
    quantity = "position_cm"
    labels = _labels(following["chunks"], against, models)
    pairs = {pair: tree[quantity] for pair, tree in following["paired_chunks"].items() if pair.endswith("_vs_base")}
    columns = [[f"{value:.{DIGITS[quantity]}f}" for value in following["chunks"][name][quantity]] for name in labels]
    columns += [[_change(each["mean"], each, DIGITS[quantity]) for each in tree] for tree in pairs.values()]
    head = ["Chunk", *labels.values(), *(_pair_label(pair, models) for pair in pairs)]
    rows = [[str(number), *cells] for number, cells in enumerate(zip(*columns, strict=True), 1)]
    return Part(f"{CAPTIONS[against]}; by chunk: position (cm), and its difference from the base's", head, rows)


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
        "episodes. A model's distance to the command contains it: read differences. Frame 0, the given one, is left out.",
        "The distance to the reading of the recorded frames (as the autoencoder reconstructs them, at the same time) leaves out what the "
        "reader gets wrong in both alike, so smaller differences between models show. It does not say how far the arm is from its "
        "command. Its first row, the recorded frames themselves, shows what the autoencoder alone changes.",
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
    for against, following in numbers["action_following"].items():
        rows += _following_rows(following, {"score": "action_following", "against": against})
    columns = ["distance", "difference", "mean", "episodes"]
    write_text(folder / f"{NAME}.csv", pd.DataFrame(rows).drop(columns=columns, errors="ignore").to_csv(index=False, float_format="%.6g"))


def _following_rows(following: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = []
    for model, quantities in following["chunks"].items():
        for quantity, means in quantities.items():
            row, found = {**names, "of": quantity, "model": model}, following["overall"][model][quantity]
            rows.append(row | found | {"value": found["mean"]})
            rows += [row | {"chunk": number, "value": mean} for number, mean in enumerate(means, 1)]
    for pair, quantities in following["paired"].items():
        ours, theirs = pair.rsplit("_vs_", 1)
        for quantity, found in quantities.items():
            row = {**names, "of": quantity, "model": ours, "minus": theirs}
            rows.append(row | found | {"value": found["difference"]})
            chunks = following["paired_chunks"][pair][quantity]
            rows += [row | each | {"chunk": number, "value": each["mean"]} for number, each in enumerate(chunks, 1)]
    return rows


def following_figure(following: Mapping[str, Following], settings: Settings, folder: Path) -> None:
    """Write action_following.{png,pdf}: for each of AGAINST the distances by chunk, below them their paired difference from the base."""
    known, everything = settings.models, following[COMMAND]
    shown = known.ordered(everything)
    trained = [model for model in shown if known[model].checkpoint and model != "base"]
    chunks = np.arange(1, everything[RECORDED].shape[1] + 1)
    with figure(2 * len(AGAINST), len(QUANTITIES), 9.2, 8.8, sharex=True, height_ratios=(1.5, 1) * len(AGAINST)) as (fig, axes):
        for row, against in enumerate(AGAINST):
            found, (tops, bottoms) = following[against], axes[2 * row : 2 * row + 2]
            readers = [name for name in LINES if name in found]
            for place, quantity in enumerate(QUANTITIES):
                top, bottom = tops[place], bottoms[place]
                for name in readers:
                    style, colour = LINES[name]
                    means = found[name][:, :, place].mean(axis=0)
                    top.plot(chunks, means, linestyle=style, color=colour, linewidth=1.1, label=LEGEND[name])
                for model in shown:
                    mean_with_band(top, chunks, found[model][:, :, place], model, settings)
                _limits(top, [found[name][:, :, place].mean(axis=0) for name in [*readers, *known.rolled_out(shown)]])
                if not row:
                    top.set_title(f"{QUANTITY_NAMES[quantity]} ↓")
                for model in trained if "base" in found else []:
                    mean_with_band(bottom, chunks, (found[model] - found["base"])[:, :, place], model, settings)
                bottom.axhline(0, color=known["base"].colour if "base" in found else INK, linewidth=1.2)
            tops[0].set_ylabel(AXES[against])
            bottoms[0].set_ylabel("Difference from base")
        for ax in axes[-1]:
            ax.set_xlabel("Chunk of the rollout")
        for ax in (ax for row in axes for ax in row):
            ax.grid(axis="y", color=GRID, linewidth=0.6)
            ax.margins(x=0)
        handles, labels = axes[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="upper left", ncols=3, bbox_to_anchor=(0.005, 0.97), fontsize=8)
        fig.tight_layout(rect=(0, 0.035, 1, 0.91), h_pad=1.0)
        cut = "  ·  the copied frame is not shown where it is above the axes" if "copy_frame" in everything else ""
        title_and_note(
            fig, "Action following: the pose that is read from a model's frames",
            f"Scale: {settings.scale}  ·  {len(everything[RECORDED])} episodes, seeds {', '.join(map(str, settings.seeds))}\n"
            f"bands: {settings.confidence:.0%} bootstrap interval over episodes; lower rows: paired differences{cut}",
        )  # fmt: skip
        save(fig, folder, FIGURE)


def _limits(ax: Axes, curves: Sequence[np.ndarray]) -> None:
    """Fit the axes to world models and reader; the copied frame may leave the axes."""
    low, high = min(curve.min() for curve in curves), max(curve.max() for curve in curves)
    margin = 0.12 * ((high - low) or 1.0)
    ax.set_ylim(low - margin, high + margin)
