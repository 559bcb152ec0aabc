"""Reads a data set's own files, which others wrote: whatever is odd in them ends in one line that names the file."""

import contextlib
import json
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from persistworld.data.episodes import BadEpisode
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import disguise

# What code that expects well-formed content raises on content that is not. An error of the system's own (no space, no right) is told by
# the command line.
ODD = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, pa.ArrowException)


@contextlib.contextmanager
def odd_file(path: Path, expected: str) -> Iterator[None]:
    """Turn what odd content of `path` raises within into a UserError that says what was `expected`."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the data set is not whole: download it again") from None
    except ODD as error:
        raise UserError(f"{path}: {disguise(path) or f'{expected} ({reason(error)})'}") from None


@contextlib.contextmanager
def odd_episode(index: int, path: Path) -> Iterator[None]:
    """Turn what odd content of `path` raises within into a BadEpisode that names the file."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise BadEpisode(index, f"listed, but {path} is missing") from None
    except (*ODD, OSError) as error:
        raise BadEpisode(index, f"{path} cannot be read ({disguise(path) or reason(error)})") from None


def reason(error: BaseException) -> str:
    """An exception in a few words, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if isinstance(error, KeyError | TypeError | AttributeError | IndexError) else text[:200]


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in one of the data set's files. Raises UserError, also when it has a key twice: one would be lost."""
    with odd_file(path, "not valid JSON; is this the data set's own file?"):
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unrepeated)
        if not isinstance(raw, dict):
            raise UserError(f"{path}: expected keys with values; is this the data set's own file?")
        return raw


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} stands there twice")
    return found


def check_template(path: Path, key: str, template: object, known: dict[str, object], needed: Sequence[str]) -> str:
    """`template` of the key `key` in `path`. It may hold the placeholders `known` (name -> an example) and must hold those in `needed`.

    Raises UserError otherwise.
    """
    names = ", ".join(f"{{{name}}}" for name in known)
    if not isinstance(template, str):
        raise UserError(f"{path}: {key} = {template!r}: expected text with the placeholders {names}")
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        template.format(**known)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: {key} = {template!r}: cannot be filled in ({reason(error)}); the placeholders are {names}") from None
    if lacking := [name for name in needed if name not in used]:
        raise UserError(f"{path}: {key} = {template!r}: has no {{{lacking[0]}}}, so that different things would share one file")
    return template
