"""Renders the report: one HTML page with embedded pictures and videos."""

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from persistworld.config.models import Models
from persistworld.paper.blocks import Block
from persistworld.paper.cells import Claim
from persistworld.paper.overlays import CLASSES
from persistworld.paper.pages import write_page
from persistworld.runtime.provenance import git_commit

PACKAGES = (
    "persistworld", "torch", "torchvision", "diffusers", "transformers", "peft", "lpips", "numpy", "scipy", "pandas",
    "pybullet", "av", "snakemake", "dvc",
)  # fmt: skip


@dataclass(frozen=True)
class Video:
    """A comparison video: mp4 bytes and a caption."""

    caption: str
    mp4: bytes


@dataclass(frozen=True)
class Picture:
    """A figure: png bytes, a title and a one-sentence caption."""

    title: str
    text: str
    png: bytes


@dataclass(frozen=True)
class Sheet:
    """Frames of one episode with their masks: a JPEG and the text above it."""

    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class Page:
    """The contents of the page.

    `tables`: (title, blocks). `sheets`: frames with masks. `odd`: one sentence per irregularity in the episodes. `facts`: name and value.
    `parameters`: YAML. `manifests`: JSON by model.
    """

    scale: str
    protocol: str
    models: Models
    claims: list[Claim]
    tables: list[tuple[str, list[Block]]]
    notes: list[str]
    pictures: list[Picture]
    videos: list[Video]
    sheets: list[Sheet]
    odd: list[str]
    training: Picture | None
    times: pd.DataFrame
    facts: dict[str, str]
    parameters: str
    manifests: dict[str, str]


def write_report(path: Path, page: Page) -> None:
    """Render the page to `path`, atomically."""
    stages = stage_rows(page.times)
    write_page(
        path, "template.html", scale=page.scale, page=page, classes=CLASSES, stages=stages, label=lambda name: page.models[name].label
    )


def read_times(folder: Path) -> pd.DataFrame:
    """Read Snakemake's benchmark files: stage (the file's name), seconds and peak memory in MB, longest first. Empty if there are none."""
    rows = []
    for path in sorted(folder.glob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        memory = pd.to_numeric(table["max_rss"], errors="coerce").max()
        rows.append({"stage": path.stem, "seconds": float(table["s"].mean()), "memory": memory})
    times = pd.DataFrame(rows, columns=["stage", "seconds", "memory"])
    return times.sort_values(["seconds", "stage"], ascending=[False, True], ignore_index=True)


def stage_rows(times: pd.DataFrame) -> list[dict[str, str | float]]:
    """Printable rows: stage, seconds, share of the sum, peak memory. Jobs run in parallel, so the sum exceeds the wall-clock time."""
    total = times["seconds"].sum() or 1.0
    return [
        {
            "stage": row.stage,
            "seconds": f"{row.seconds:.1f}",
            "share": 100 * row.seconds / total,
            "memory": "–" if pd.isna(row.memory) else f"{row.memory:.0f}",
        }
        for row in times.itertuples()
    ]


def environment_facts() -> dict[str, str]:
    """The versions of Python and the main packages, the machine, and the git commit if there is one."""
    facts = {"Python": platform.python_version(), "Machine": f"{platform.system()} {platform.machine()}"}
    if (commit := git_commit()) is not None:
        facts["Commit"] = commit
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the workflow engines are optional
    return facts
