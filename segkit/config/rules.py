"""Rules that values of options are held to, and configurations from plain values."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from segkit.errors import SegkitError

Config = TypeVar("Config")
MOST_IMAGES = 10**6  # in a batch, or in a split of built-in scenes: more is a slip of the hand, and lists of that many fill memory


def within(prefix: str, config: object, least: float, most: float | None, *names: str) -> None:
    """Holds the named numbers of `config` between `least` and `most`, ends included."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (least <= value and (most is None or value <= most)):
            rule = f"give {least} or more" if most is None else f"give a number from {least} to {most}"
            raise SegkitError(f"--{prefix}{name} {value}: {rule}")


def from_dict(config: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """Builds a configuration from nested plain values, such as a saved `config.yaml`; the inverse of `dataclasses.asdict`.

    Args:
        config: The class.
        values: Some of its fields.
        prefix: What comes before their names in messages.

    Raises:
        SegkitError: If a value breaks its rule, is null where that is none, or a name is unknown.
    """
    hints = get_type_hints(config)
    if not isinstance(values, Mapping):
        raise SegkitError(
            f"{config.__name__.removesuffix('Config').lower()}: {values!r} in the configuration; give its options, one per line below it"
        )
    if unexpected := sorted(values.keys() - hints.keys(), key=str):
        raise SegkitError(f"the configuration has no option {unexpected[0]!r}; it was written by another version of segkit")
    for name, value in values.items():
        if value is None and hints[name] is not Any and NoneType not in get_args(hints[name]) and not is_dataclass(hints[name]):
            raise SegkitError(f"--{prefix}{name} null: the option needs a value; leave it out for its default")
    return config(**{k: from_dict(hints[k], v, f"{prefix}{k}.") if is_dataclass(hints[k]) else v for k, v in values.items()})
