"""The options of a configuration class, as its type hints tell them. Standard library only."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def options(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a configuration class with its type: `("data.crop", int)`, ..."""
    hints = get_type_hints(config)
    for field in fields(config):
        kind = hints[field.name]
        if is_dataclass(kind):
            yield from options(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + field.name, kind


def choices(kind: Any) -> tuple[str, ...]:
    """The names that a type admits: those of every `Literal` in it."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(dict.fromkeys(name for part in get_args(kind) for name in choices(part)))


def takes_several(kind: Any) -> bool:
    """Whether a type admits a list."""
    return get_origin(kind) in (list, tuple) or any(takes_several(part) for part in get_args(kind))
