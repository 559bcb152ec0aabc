"""Renders this package's HTML templates into self-contained pages."""

import base64
from importlib import resources
from pathlib import Path

import jinja2

from persistworld.evaluation.score_table import METRICS
from persistworld.paper.blocks import HEADINGS
from persistworld.runtime.files import atomic_path


def write_page(path: Path, template: str, **content) -> None:
    """Render a template of this package to `path`, atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: resources.files("persistworld.paper").joinpath(name).read_text()),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    html = environment.get_template(template).render(metrics=METRICS, headings=HEADINGS, **content)
    with atomic_path(path) as part:
        part.write_text(html)
