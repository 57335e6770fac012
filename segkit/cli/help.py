"""What `--help` prints, from the fields of a configuration class and their docstrings. Standard library only."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from segkit.cli.arguments import descriptions
from segkit.cli.options import choices, takes_several

Word = tuple[str, dict[str, Any]]  # as `ArgumentParser.add_argument` takes it


def help_text(prog: str, description: str, config: type, file: bool, words: Sequence[Word]) -> str:
    """Every option with its type and default, in the groups that the configuration has.

    Args:
        prog: The command.
        description: Its first line.
        config: The dataclass whose fields are the options.
        file: Whether `--config FILE` is an option.
        words: Further options, and words that are none.
    """
    parser = argparse.ArgumentParser(prog, description=description, allow_abbrev=False)
    if file:
        parser.add_argument("--config", metavar="CONFIG", help="YAML file with any of the options below; flags beat it")
        parser.add_argument("--print_config", action="store_true", help="print the configuration that all this makes, and leave")
    for name, settings in words:
        parser.add_argument(name, **settings)
    _add_group(parser, config, "", (config.__doc__ or "").partition("\n")[0].rstrip("."))
    return parser.format_help()


def _add_group(parser: argparse.ArgumentParser, config: type, prefix: str, title: str) -> None:
    group = parser.add_argument_group(title)
    if prefix:
        group.add_argument(f"--{prefix[:-1]}", metavar="CONFIG", help="YAML file with options of this group")
    hints, described = get_type_hints(config), descriptions(config)
    for field in fields(config):
        kind = hints[field.name]
        if is_dataclass(kind):
            _add_group(parser, kind, f"{prefix}{field.name}.", described[field.name])  # type: ignore[arg-type]
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        text = f"{described[field.name]} (type: {_type(kind)}, default: {_value(default)})"
        group.add_argument(f"--{prefix}{field.name}", metavar=_metavar(field.name, kind), help=text.replace("%", "%%"))


def _metavar(name: str, kind: Any) -> str:
    if kind is bool:
        return "{true,false}"
    if takes_several(kind):
        return "[ITEM,...]" if get_origin(kind) in (list, tuple) else name.upper()
    return "{" + ",".join(choices(kind)) + "}" if choices(kind) else name.upper()


def _type(kind: Any) -> str:
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind).replace("typing.", "").replace("NoneType", "null").replace("None", "null")


def _value(default: Any) -> str:
    return "null" if default is None else str(default)
