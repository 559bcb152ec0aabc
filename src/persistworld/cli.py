"""The console script `persistworld`: a sub-command per stage.

Nothing heavy is imported here, so that `persistworld --help` answers at once; a stage's module is imported when it is
called, after the number of threads has been settled (OpenMP reads it at import).
"""

import argparse
import errno
import importlib
import os
import signal
import sys
from typing import Any, NoReturn

from persistworld.config.params import load_params
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import system_error
from persistworld.runtime.memory import keep_freed_memory

Command = tuple[str, dict[str, dict[str, Any]]]  # what it does, its options: name -> keywords of argparse
# What the workflow calls.
STAGES: dict[str, Command] = {
    "episodes": ("simulate or read the episodes", {}),
    "base_checkpoint": ("fetch the base checkpoint", {}),
    "base_training": (
        "rebuild the base checkpoint from nothing (hours)",
        {"--output": {"default": "assets/tabletop_base", "metavar": "FOLDER", "help": "(default: %(default)s)"}},
    ),
    "latents": (
        "encode one shard of the episodes",
        {"--shard": {"type": int, "required": True, "help": "0 .. latents.shards - 1"}},
    ),
    "manifest": ("list episodes, splits, windows and pose statistics", {}),
    "masks": ("mask the robot and the manipulated object", {}),
    "post_training": (
        "post-train on the model's own rollouts (Algorithm 1)",
        {"--run": {"default": "post_trained", "help": "post_trained, or a name in variants (default: %(default)s)"}},
    ),
    "teacher_forcing": ("the control: as much compute spent on teacher forcing", {}),
    "rollouts": (
        "roll one model out from every evaluation episode",
        {
            "--model": {"required": True, "help": "base, teacher_forced, post_trained, or a name in variants"},
            "--seed": {"type": int, "required": True, "help": "one of evaluation.seeds"},
        },
    ),
    "scores": (
        "score one model's rollouts frame by frame",
        {"--model": {"required": True, "help": "one of evaluation.models, or a name in variants"}},
    ),
    "tables": ("Tables 1 and 2, paired statistics", {}),
    "figures": ("Figures 3, 4, 5 and 11", {}),
    "report": ("one page with everything in it", {}),
    "variant": ("metrics of one variant", {"--model": {"required": True, "help": "a name in variants"}}),
}
# The same for what people call beside the workflow.
TOOLS: dict[str, Command] = {
    "check": ("print what a run will use, leave out and convert, and how much disk and time it takes", {}),
    "defaults": ("print every parameter with its default", {}),
    "agreement": (
        "print which weights' gradients episodes have in common: lora.exclude is for the others",
        {
            "--groups": {"type": int, "default": 64, "metavar": "N", "help": "of candidates, of different episodes (default: %(default)s)"},
            "--depth": {"type": int, "default": 5, "metavar": "N", "help": "parts of a name that make a row (default: %(default)s)"},
        },
    ),
    "fetch": (
        "download SVD, CLIP, Ctrl-World or PersistWorld at a pinned commit",
        {
            "name": {"choices": ["svd", "clip", "ctrl-world", "persistworld"]},
            "--output": {"required": True, "metavar": "FOLDER"},
            "--revision": {"metavar": "COMMIT", "help": "(default: the one on record; PersistWorld has none)"},
        },
    ),
    "import_checkpoint": (
        "make a checkpoint folder of a published model",
        {
            "source": {"help": "a flat .pt or .safetensors as Ctrl-World publishes it, or SVD's folder"},
            "--clip": {"required": True, "metavar": "FOLDER", "help": "CLIP's tokenizer.json (and weights, for SVD)"},
            "--statistics": {"metavar": "FILE", "help": "stat.json of its poses (default: Ctrl-World's)"},
            "--output": {"required": True, "metavar": "FOLDER"},
        },
    ),
    "export_checkpoint": (
        "write a checkpoint folder as others read it",
        {
            "checkpoint": {"help": "a folder in checkpoints/"},
            "--format": {"choices": ["flat", "folders", "adapter"], "default": "flat"},
            "--base": {"default": "checkpoints/base", "metavar": "FOLDER", "help": "(default: %(default)s)"},
            "--output": {"required": True, "metavar": "PATH"},
            "--no-image-encoder": {"action": "store_true", "help": "leave out SVD's image encoder, which is not used"},
        },
    ),
}
COMMANDS = STAGES | TOOLS
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
TERMINATED = 143  # 128 + SIGTERM
# What the system refuses for reasons that lie outside of the program, and the mend.
REFUSALS = {
    errno.ENOSPC: "free some and run the same command again",
    errno.EDQUOT: "free some and run the same command again",
    errno.EROFS: "work in a folder that can be written, or mount this one so",
    errno.EACCES: "give this user the right to read and write there (ls -l, chmod), or work in a folder of your own",
}


class Parser(argparse.ArgumentParser):
    """argparse, with one line instead of the usage on a mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"persistworld: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line: a sub-command per stage; hyphens and underscores in a stage's name mean the same."""
    top = Parser(
        prog="persistworld",
        description="Post-train an action-conditioned, multi-view robot world model on its own rollouts.",
        epilog="`snakemake --cores all` calls these in order; `persistworld STAGE --help` lists a stage's options.",
    )
    commands = top.add_subparsers(dest="stage", required=True, metavar="STAGE", parser_class=Parser)
    for stage, (text, options) in COMMANDS.items():
        command = commands.add_parser(stage, help=text, description=text)
        command.add_argument("--params", default="params.yaml", metavar="FILE", help="(default: %(default)s)")
        command.add_argument(
            "--threads", type=_positive, default=os.cpu_count(), metavar="N", help="or workers (default: all cores)"
        )
        for option, keywords in options.items():
            command.add_argument(option, **keywords)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one stage. Returns the exit status: 0, 2 for a mistake that the user can mend, 130 or 143 when it was stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0].replace("-", "_") in COMMANDS:
        argv[0] = argv[0].replace("-", "_")
    args = parser().parse_args(argv)
    args.threads = max(1, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's processes share a machine's cores
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(args.threads)
    keep_freed_memory()
    # A polite kill unwinds the stack, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        params = load_params(args.params)
        importlib.import_module(f"persistworld.{'stages' if args.stage in STAGES else 'tools'}.{args.stage}").main(params, args)
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
        where = getattr(error, "filename", None) or args.stage
        return _fail(f"{where}: {os.strerror(code).lower()}; {REFUSALS[code]}")
    return 0


def _fail(message: str) -> int:
    print(f"persistworld: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _refusal(error: Exception) -> int | None:
    """Which of `REFUSALS` the system answered, if one."""
    code = getattr(system_error(error), "errno", None)
    # safetensors wraps the system's error in an exception of its own, which keeps only its text.
    return code if code in REFUSALS else next((known for known in REFUSALS if os.strerror(known) in str(error)), None)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
