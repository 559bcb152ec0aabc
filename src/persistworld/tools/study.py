"""Ask people which model's rollouts they prefer, or label how far policies get in their tasks (docs/study.md)."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from persistworld.apps.server import allowed_hosts
from persistworld.apps.server import serve as serve_app
from persistworld.apps.study import store
from persistworld.apps.study.routes import study_app
from persistworld.apps.study.rows import CSV_COLUMNS, csv_rows
from persistworld.config.params import Params
from persistworld.evaluation.preference import analysed
from persistworld.evaluation.votes import read_votes, write_rows
from persistworld.paper.votes_text import results_text
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import write_json

OPTIONS = {
    "create": (
        "make a study from rollouts that exist",
        {
            "name": {"metavar": "NAME", "help": "of the study: studies/NAME.sqlite"},
            "--models": {
                "nargs": 2, "default": ["post_trained", "base"], "metavar": ("OURS", "THEIRS"), "help": "(default: post_trained base)"
            },
            "--items": {"type": "int", "default": 48, "metavar": "N", "help": "comparisons, 0: all there are (default: %(default)s)"},
            "--views": {"nargs": "+", "metavar": "VIEW", "help": "(default: all)"},
            "--seed": {"type": "int", "metavar": "N", "help": "of items, orders and sides (default: that of params.yaml)"},
            "--title": {"default": "Which video is closer to the reference?", "help": "(default: %(default)s)"},
            "--rollouts": {"metavar": "FILE", "help": "a CSV of policies' videos: label their progress instead (docs/study.md)"},
        },
    ),
    "invite": (
        "print invitation links, each for one rater",
        {
            "name": {"metavar": "NAME", "help": "of the study"},
            "raters": {"nargs": "*", "metavar": "RATER", "help": "names, shown only on the administrator's page"},
            "--count": {"type": "int", "default": 0, "metavar": "N", "help": "and so many raters without a name"},
            "--url": {"default": "http://127.0.0.1:8642", "help": "where the study is served (default: %(default)s)"},
        },
    ),
    "serve": (
        "serve the study's pages",
        {
            "name": {"metavar": "NAME", "help": "of the study"},
            "--host": {"default": "127.0.0.1", "help": "address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)"},
            "--port": {"type": "int", "default": 8642, "help": "0 takes a free one (default: %(default)s)"},
            "--prefix": {"default": "", "metavar": "PATH", "help": "serve below this path, e.g. /lab/study behind a proxy"},
            "--allow-host": {
                "action": "append", "default": [], "metavar": "NAME",
                "help": "host name under which a browser may reach the pages, e.g. a proxy's (default: this machine's loopback names)",
            },
        },
    ),
    "export": (
        "write the answers as CSV",
        {"name": {"metavar": "NAME", "help": "of the study"}, "--output": {"required": True, "metavar": "FILE"}},
    ),
    "backup": (
        "copy the study into one file, also while it is served",
        {"name": {"metavar": "NAME", "help": "of the study"}, "--output": {"required": True, "metavar": "FILE"}},
    ),
    "results": (
        "evaluate votes",
        {
            "votes": {"metavar": "VOTES.csv"},
            "--ours": {"default": "post_trained", "metavar": "MODEL", "help": "whose share is reported (default: %(default)s)"},
            "--output": {"metavar": "FILE", "help": "write the numbers as JSON, too"},
        },
    ),
}  # fmt: skip


def main(params: Params, args: argparse.Namespace) -> None:
    """args.action names one of the functions below. The other arguments are its options."""
    {"create": create, "invite": invite, "serve": serve, "export": export, "backup": backup, "results": results}[args.action](params, args)


def create(params: Params, args: argparse.Namespace) -> None:
    """args: name, models, views, items, seed, title, rollouts (a CSV file; raters then label the progress of policies instead)."""
    from persistworld.apps.study import making  # imported here because it imports torch, which a server does not need

    path = store.study_path(args.name)
    if path.exists():
        raise UserError(f"{path}: exists, and may hold votes; choose another name, or move it away")
    seed = params.seed if args.seed is None else args.seed
    if args.rollouts:
        table = Path(args.rollouts)
        rows = making.read_policy_rollouts(table)
        meta, materials, count = {"kind": "progress"}, making.progress_materials(table, rows), len(rows)
    else:
        views = tuple(args.views or params.episodes.views)
        if unknown := [view for view in views if view not in params.episodes.views]:
            raise UserError(f"--views {unknown[0]}: no such view; choose from {', '.join(params.episodes.views)}")
        first, second = models = tuple(args.models)
        if first == second:
            raise UserError(f"--models {first} {second}: name two different ones")
        items = making.pairs(params, views, args.items, seed)
        meta = {"kind": "preference", "models": models}
        materials, count = making.preference_materials(params, models, items), len(items)
    token = store.create_study(path, meta | {"seed": seed, "title": args.title}, materials)
    print(f"{path}: {count} items; it holds everything, films and votes, and is the one file to back up")
    print(f"administrator's page: /admin#{token}\n(this token is not stored: keep it)")
    print(f"next: persistworld study invite {args.name} --count 8; persistworld study serve {args.name}")


def invite(params: Params, args: argparse.Namespace) -> None:
    """args: name, raters (names, may be empty), count (number of raters without a name), url."""
    with _open(args.name) as opened:
        for name in [*args.raters, *[""] * args.count]:
            print(f"{name or 'rater'}: {args.url.rstrip('/')}/#{opened.invite(name)}")


def serve(params: Params, args: argparse.Namespace) -> None:
    """args: name, and the server's options."""
    with _open(args.name) as opened:
        serve_app(study_app(opened, allowed_hosts(args.host, args.allow_host)), args.host, args.port, args.prefix)


def export(params: Params, args: argparse.Namespace) -> None:
    """args: name, output."""
    with _open(args.name) as opened:
        rows = csv_rows(opened)
        write_rows(args.output, CSV_COLUMNS[opened.meta["kind"]], rows)
    print(f"{args.output}: {len(rows)} answers")


def backup(params: Params, args: argparse.Namespace) -> None:
    """args: name, output."""
    with _open(args.name) as opened:
        opened.back_up(Path(args.output))
    print(f"{args.output}: a copy of the study as it stands")


def results(params: Params, args: argparse.Namespace) -> None:
    """args: votes, ours, output."""
    votes = read_votes(args.votes)
    if votes.empty:
        raise UserError(f"{args.votes}: holds no vote; `persistworld study export NAME --output {args.votes}` writes those of a study")
    models = sorted(set(votes["winner"]) | set(votes["loser"]))
    if args.ours not in models:
        raise UserError(f"--ours {args.ours}: {args.votes} compares {' and '.join(models)}; name one of them")
    found = analysed(votes, args.ours, params.seed, params.paper.confidence)
    print(results_text(found, params.models))
    if args.output:
        write_json(args.output, found)


@contextlib.contextmanager
def _open(name: str) -> Iterator[store.Store]:
    opened = store.Store(store.study_path(name))
    try:
        yield opened
    finally:
        opened.close()
