"""The console script `persistworld`: a sub-command for each module in `stages/` and `tools/`.

The module's name is the command's name, and the first line of its docstring is the help text. `OPTIONS` (optional) holds the options as
literals: name -> keywords of argparse (types by name). If the command has actions, it holds name -> (help text, options) instead.
Both are read from the source, and a module is imported only when its command is called. `persistworld --help` is therefore fast, and the
number of threads is set before torch is imported (OpenMP reads it then).
"""

import argparse
import ast
import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from persistworld.config.params import load_params
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import system_error
from persistworld.runtime.holding import hold
from persistworld.runtime.lifeline import end_with_launcher
from persistworld.runtime.memory import keep_freed_memory
from persistworld.runtime.workspace import LOCKS

KINDS = {"stages": "stages, which the workflow calls", "tools": "tools, which people call"}  # folder -> heading in --help
TYPES = {"int": int, "float": float}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM
# Operating system errors with causes outside the program, and what to do about them.
REFUSALS = {
    errno.ENOSPC: "free some and run the same command again",
    errno.EDQUOT: "free some and run the same command again",
    errno.EROFS: "work in a folder that can be written, or mount this one so",
    errno.EACCES: "give this user the right to read and write there (ls -l, chmod), or work in a folder of your own",
}


@dataclass(frozen=True)
class Command:
    """A command as its module describes it."""

    name: str
    kind: str  # a key of KINDS
    about: str
    options: dict[str, Any]


def commands() -> Iterator[Command]:
    """All commands, sorted by kind and name and read from the modules' sources."""
    for kind in KINDS:
        for path in sorted((Path(__file__).parent / kind).glob("[a-z]*.py")):
            module = ast.parse(path.read_text(encoding="utf-8"))
            options = [ast.literal_eval(node.value) for node in module.body if _assigns_options(node)]
            about = (ast.get_docstring(module) or "").partition("\n")[0]
            yield Command(path.stem, kind, about, options[0] if options else {})


def _assigns_options(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "OPTIONS"


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints one line instead of the usage on an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"persistworld: error: {message} (see {self.prog} --help)\n")


def parser(known: list[Command]) -> argparse.ArgumentParser:
    """The command line parser with a sub-command for each of `known`."""
    top = Parser(
        prog="persistworld",
        usage="persistworld COMMAND [options]",
        description="Post-train an action-conditioned, multi-view robot world model on its own rollouts.",
        epilog=_listing(known),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser, help=argparse.SUPPRESS)
    for command in known:
        sub = subparsers.add_parser(command.name, description=command.about, prog=f"persistworld {command.name}")
        _add_options(sub, command.options)
    return top


def _add_options(sub: argparse.ArgumentParser, options: dict[str, Any]) -> None:
    """Add a command's own options and the common ones, or a sub-command for each of its actions."""
    if options and all(isinstance(value, tuple) for value in options.values()):
        actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
        for name, (about, own) in options.items():
            _add_options(actions.add_parser(name, help=about, description=about), own)
        return
    for name, convert in TYPES.items():
        sub.register("type", name, convert)
    sub.add_argument("--params", default="params.yaml", metavar="FILE", help="(default: %(default)s)")
    sub.add_argument("--threads", type=_positive, default=os.cpu_count(), metavar="N", help="or workers (default: all cores)")
    for option, keywords in options.items():
        sub.add_argument(option, **keywords)


def _listing(known: list[Command]) -> str:
    """The help text: the commands under the headings of their kinds."""
    lines = []
    for kind, heading in KINDS.items():
        lines += [f"{heading}:", *(f"  {command.name:18} {command.about}" for command in known if command.kind == kind), ""]
    lines += ["`persistworld COMMAND --help` lists a command's options; `snakemake --cores all` calls the stages in order."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command. Hyphens and underscores in its name are equivalent.

    Returns the exit status: 0, 2 for an error that the user can fix, 130 or 143 if the command was stopped.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    known = list(commands())
    by_name = {command.name: command for command in known}
    if argv and argv[0].replace("-", "_") in by_name:
        argv[0] = argv[0].replace("-", "_")
    args = parser(known).parse_args(argv)
    args.threads = max(1, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's processes share a machine's cores
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(args.threads)
    keep_freed_memory()
    end_with_launcher()
    # SIGTERM unwinds the stack, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        params = load_params(args.params)
        command = by_name[args.command]
        with _hold_files(command, args) if command.kind == "stages" else contextlib.nullcontext():
            importlib.import_module(f"persistworld.{command.kind}.{command.name}").main(params, args)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("persistworld: interrupted; call the same command again", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        print("persistworld: terminated; call the same command again", file=sys.stderr)
        return TERMINATED
    except Exception as error:
        if (code := _refusal(error)) is None:
            raise
        where = getattr(error, "filename", None) or args.command
        return _fail(f"{where}: {os.strerror(code).lower()}; {REFUSALS[code]}")
    return 0


def _hold_files(command: Command, args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """The lock on a stage's outputs. It is named by the stage and its options' values, such as post_training-post_trained."""
    values = (getattr(args, option.lstrip("-").replace("-", "_")) for option in command.options)
    parts = (part for value in values for part in (value if isinstance(value, list) else [value]))
    name = "-".join([command.name, *map(str, parts)])
    return hold(LOCKS / name.replace("/", "_"), name)


def _fail(message: str) -> int:
    print(f"persistworld: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _refusal(error: Exception) -> int | None:
    """The key of `REFUSALS` that `error` matches, or None."""
    code = getattr(system_error(error), "errno", None)
    # safetensors wraps the system's error in its own exception, which keeps only the text.
    return code if code in REFUSALS else next((known for known in REFUSALS if os.strerror(known) in str(error)), None)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
