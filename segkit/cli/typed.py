"""The parser that knows types: of jsonargparse, whose import takes longer than most command lines need."""

from collections.abc import Callable
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, get_loader, set_loader, set_parsing_settings  # type: ignore[attr-defined]

from segkit.cli.options import declared
from segkit.yaml_file import check_yaml


def load_checked(text: str) -> Any:
    """The values in a YAML text, if it holds no more than a person writes."""
    check_yaml(text)
    try:
        return get_loader("yaml")(text)
    except (ValueError, TypeError, AttributeError) as error:  # such as a whole number too long for Python, or keys that are none
        raise yaml.YAMLError(str(error)) from error


class TypedParser(ArgumentParser):
    """Words and files to values of the types that a configuration declares.

    Args:
        prog: The command.
        config: The dataclass whose fields are the options.
        file: Whether `--config FILE` is an option.
        complain: Takes what is wrong, and does not return.
    """

    def __init__(self, prog: str, config: type, file: bool, complain: Callable[[str], NoReturn]) -> None:
        set_parsing_settings(docstring_parse_attribute_docstrings=False)
        set_loader("checked", load_checked, (yaml.YAMLError,))
        super().__init__(prog=prog, allow_abbrev=False, parser_mode="checked")
        self._complain = complain
        if file:
            self.add_argument("--config", action=ActionConfigFile)
        self.add_class_arguments(config, None)
        # as declared: a nested default is an instance, in which __post_init__ has decided already what "auto" means
        self.set_defaults(dict(declared(config)))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hands a mistake to who says it."""
        self._complain(message)
