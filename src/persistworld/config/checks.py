"""Range checks for parameters. Each raises a UserError that names the key, the value and what to do."""

from typing import Any

from persistworld.runtime.errors import UserError


def require(condition: bool, key: str, value: Any, advice: str) -> None:
    """Raise UserError about `key` unless `condition` holds."""
    if not condition:
        raise UserError(f"{key} = {value}: {advice}")


def at_least(least: int, section: Any, where: str, *names: str) -> None:
    """Raise UserError about the first of the section's fields `names` that is below `least`."""
    for name in names:
        require(getattr(section, name) >= least, f"{where}.{name}", getattr(section, name), f"must be at least {least}")


def positive(section: Any, where: str, *names: str) -> None:
    """Raise UserError about the first of the fields that is not above 0."""
    for name in names:
        require(getattr(section, name) > 0, f"{where}.{name}", getattr(section, name), "must be positive")


def within_unit(section: Any, where: str, *names: str) -> None:
    """Raise UserError about the first of the fields that is not in 0..1 (probabilities and shares)."""
    for name in names:
        require(0 <= getattr(section, name) <= 1, f"{where}.{name}", getattr(section, name), "must lie in 0..1")


def a_decay(section: Any, where: str, name: str) -> None:
    """Raise UserError if the decay of a moving average is out of range. At 1 the average would never change."""
    value = getattr(section, name)
    require(0 <= value < 1, f"{where}.{name}", value, "must be at least 0 (no average) and below 1")


def distinct(section: Any, where: str, *names: str) -> None:
    """Raise UserError about the first of the fields that contains a value twice."""
    for name in names:
        values = getattr(section, name)
        twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
        require(not twice, f"{where}.{name}", values, f"names {twice[0] if twice else ''} twice")
