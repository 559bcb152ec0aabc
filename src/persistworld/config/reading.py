"""Builds frozen dataclasses from plain keys and values (YAML, JSON). Every error says what to do.

Unknown keys and wrong types are refused. For an unknown key, the error names the most similar one. The dataclass checks the values.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import yaml

from persistworld.runtime.errors import UserError


def digest(*sections: Any) -> str:
    """A short hash of parameter sections, for manifests of checkpoints."""
    content = json.dumps([dataclasses.asdict(section) for section in sections], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message about an unknown `name`: the most similar known name, or all known names."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A copy of `old` updated with the keys of `new`. Nested sections are merged recursively."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = merge(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
    return merged


def build_section(cls: type, raw: dict[str, Any], where: str) -> Any:
    """Build a dataclass from plain keys and values. Raises UserError, which names the section `where`, for unknown keys and wrong types."""
    hints = _hints(cls)
    if not isinstance(raw, dict):
        raise UserError(f"{where} = {raw!r}: expected a section with keys, such as {', '.join(list(hints)[:3])}")
    values = {}
    for key, value in raw.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise UserError(f"{name}: no such key; {nearest(str(key), hints)}")
        values[key] = _convert(hints[key], value, name)
    for item in dataclasses.fields(cls):
        if item.name not in values and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: no key {item.name}, which is needed")
    return cls(**values)


_hints = functools.cache(typing.get_type_hints)


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build_section(hint, value, name)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in args:
            raise UserError(f"{name} = {value!r}: choose from {', '.join(map(str, args))}")
        return value
    if origin is types.UnionType:
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple) or (args[-1] is not Ellipsis and len(value) != len(args)):
            raise UserError(f"{name} = {value!r}: expected a list" + ("" if args[-1] is Ellipsis else f" of {len(args)}"))
        return tuple(_convert(args[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{name} = {value!r}: expected keys with values")
        return {str(k): _convert(args[1], v, f"{name}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):  # a large number stands for "no limit", since JSON has no infinity
            raise UserError(f"{name} = {value}: expected a finite number")
        return number
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        hintful = " (without quotes)" if hint is float and isinstance(value, str) else ""
        raise UserError(f"{name} = {value!r}: expected {hint.__name__}{hintful}")
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError if it cannot be read or has a repeated key."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy one from presets/, e.g. cp presets/tabletop.yaml params.yaml") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a YAML file, e.g. one from presets/") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (at byte {error.start}); save it as UTF-8, or copy one from presets/") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected sections with keys, found {type(raw).__name__}")
    return raw


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses repeated keys (the last would win silently) and reads 1e-05 (from `dvc exp run -S`) as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} and below: the key {twice[0]} stands there twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
