"""The report: one HTML page that holds its pictures and videos in itself."""

import base64
import importlib.metadata
import platform
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import pandas as pd

from persistworld.config.models import Models
from persistworld.evaluation.score_table import METRICS
from persistworld.paper.blocks import HEADINGS, Block
from persistworld.paper.cells import Claim
from persistworld.paper.overlays import CLASSES
from persistworld.runtime.files import atomic_path
from persistworld.runtime.provenance import git_commit

PACKAGES = (
    "persistworld", "torch", "torchvision", "diffusers", "transformers", "peft", "lpips", "numpy", "scipy", "pandas",
    "pybullet", "av", "snakemake", "dvc",
)  # fmt: skip


@dataclass(frozen=True)
class Video:
    """A playable comparison: mp4 bytes and what to say under it."""

    caption: str
    mp4: bytes


@dataclass(frozen=True)
class Picture:
    """A figure: png bytes, its title and a sentence."""

    title: str
    text: str
    png: bytes


@dataclass(frozen=True)
class Sheet:
    """Frames of one episode with their masks: a JPEG and what to say above it."""

    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class Page:
    """Everything on the page. `tables` is (title, blocks); `sheets` the masks; `odd` notes about the episodes, a
    sentence each; `facts` name and value; `parameters` YAML; `manifests` JSON by model.
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
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["label"] = lambda name: page.models[name].label
    template = environment.from_string(resources.files("persistworld.paper").joinpath("template.html").read_text())
    html = template.render(
        page=page, metrics=METRICS, headings=HEADINGS, classes=CLASSES, stages=stage_rows(page.times)
    )
    with atomic_path(path) as part:
        part.write_text(html)


def read_times(folder: Path) -> pd.DataFrame:
    """Snakemake's benchmark files: stage (the file's name), seconds and peak memory in MB, longest first; empty without
    any.
    """
    rows = []
    for path in sorted(folder.glob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        memory = pd.to_numeric(table["max_rss"], errors="coerce").max()
        rows.append({"stage": path.stem, "seconds": float(table["s"].mean()), "memory": memory})
    times = pd.DataFrame(rows, columns=["stage", "seconds", "memory"])
    return times.sort_values(["seconds", "stage"], ascending=[False, True], ignore_index=True)


def stage_rows(times: pd.DataFrame) -> list[dict[str, str | float]]:
    """Printable rows: stage, seconds, share of the sum (jobs run side by side, so the sum exceeds the clock), peak
    memory.
    """
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
    """Versions of Python, the packages that matter and the machine, and the git commit where there is one."""
    facts = {"Python": platform.python_version(), "Machine": f"{platform.system()} {platform.machine()}"}
    if (commit := git_commit()) is not None:
        facts["Commit"] = commit
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the workflow engines are optional
    return facts
