"""Reads the files of external data sets. Malformed content ends in a one-line error that names the file."""

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

# The exceptions that malformed content causes in code that expects well-formed content. Errors of the operating system (no space, no
# permission) are reported by the command line.
ODD = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, pa.ArrowException)


@contextlib.contextmanager
def odd_file(path: Path, expected: str) -> Iterator[None]:
    """Within this context, turn exceptions from malformed content of `path` into a UserError that says what was `expected`."""
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
    """Within this context, turn exceptions from malformed content of `path` into a BadEpisode that names the file."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise BadEpisode(index, f"listed, but {path} is missing") from None
    except (*ODD, OSError) as error:
        raise BadEpisode(index, f"{path} cannot be read ({disguise(path) or reason(error)})") from None


def reason(error: BaseException) -> str:
    """A short description of an exception on one line, at most 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if isinstance(error, KeyError | TypeError | AttributeError | IndexError) else text[:200]


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError when it is not valid, or has a key twice (JSON parsing would drop one of the values)."""
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
    """Return `template`, the value of `key` in the file `path`, after a check of its placeholders.

    Raises UserError unless all placeholders are in `known` (name -> example value) and all names in `needed` occur.
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
