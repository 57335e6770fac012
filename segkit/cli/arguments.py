"""Command lines without jsonargparse, for the command that must run where little is installed. Standard library only.

The options are the fields of a configuration class, as with `segkit.cli.parsing.Parser`: the same spellings, the same errors in one line.
"""

import argparse
import difflib
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from segkit.cli.options import choices, options, takes_several
from segkit.errors import printable


class Arguments(argparse.ArgumentParser):
    """A parser for a flat configuration class and some words before its options.

    Args:
        config: The dataclass whose fields are the options.
        description: First lines of `--help`.
        usage: How the command is called.
    """

    def __init__(self, config: type, description: str, usage: str) -> None:
        super().__init__(Path(sys.argv[0]).name, f"%(prog)s {usage}", description, allow_abbrev=False)
        self.config, self.kinds = config, dict(options(config))
        self.words: list[str] = []
        described, defaults = descriptions(config), config()
        for name, kind in self.kinds.items():
            default = getattr(defaults, name)
            shown = "" if default is None or kind is bool else f" (default: {_written(default)})"
            text = f"{described[name]}{shown}".replace("%", "%%")
            self.add_argument(f"--{name}", metavar=_metavar(kind), help=text, nargs="*" if takes_several(kind) else None, default=None)

    def add_word(self, name: str, text: str, several: bool = False) -> None:
        """Adds a word, or any number of them, that is no option."""
        self.words.append(name)
        self.add_argument(name, metavar=name.upper(), help=text, nargs="*" if several else None)

    def read(self, args: Sequence[str]) -> tuple[Any, dict[str, Any]]:
        """The configuration, and the words that are no options, by name; leaves with one line and exit code 2 where they make no sense."""
        arranged, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            name = word.split("=")[0].removeprefix("--")
            if word.startswith("--") and name not in (*self.kinds, "help"):
                self.error(self._no_option(word))
            if word == f"--{name}" and self.kinds.get(name) is bool:
                word += f"={rest.pop(0) if rest and rest[0].lower() in ('true', 'false') else 'true'}"
            arranged.append(word)
        found = vars(self.parse_intermixed_args(arranged))
        words = {name: found.pop(name) for name in self.words}
        return self.config(**{n: self._value(n, v) for n, v in found.items() if v is not None}), words

    def error(self, message: str) -> NoReturn:
        """Prints one line on stderr and leaves with exit code 2."""
        if "arguments are required" in message:
            message = f"no {self.words[0].upper()}; call it as {self.format_usage().removeprefix('usage: ').strip()}"
        sys.stderr.write(f"{self.prog}: error: {printable(message.removeprefix('argument '))}\n")
        sys.exit(2)

    def _no_option(self, word: str) -> str:
        near = difflib.get_close_matches(word.split("=")[0].removeprefix("--"), self.kinds, n=3, cutoff=0.6)
        return f"unknown option {word!r}; " + (f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "--help lists them")

    def _value(self, name: str, given: str | list[str]) -> Any:
        kind = self.kinds[name]
        if isinstance(given, list):
            parts = [part.strip() for part in re.split(r"[,\s]+", " ".join(given).strip("[] ")) if part.strip()]
            return [self._single(name, get_args(kind)[0], part) for part in parts]
        return self._single(name, kind, given)

    def _single(self, name: str, kind: Any, text: str) -> Any:
        if valid := choices(kind):
            if text in valid:
                return text
            near = difflib.get_close_matches(text, valid, n=1)
            self.error(f"--{name} {text}: choose from {', '.join(valid)}" + (f"; did you mean {near[0]}?" if near else ""))
        kinds = [k for k in (get_args(kind) or (kind,)) if k is not type(None)]
        if bool in kinds:
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
        else:
            for convert in kinds:
                try:
                    return convert(text)
                except ValueError:
                    continue
        self.error(f"--{name} {text}: expected {' or '.join(k.__name__ for k in kinds)}")


def descriptions(config: type) -> dict[str, str]:
    """The help of each option, from the `Args:` of the class's docstring, its parents' included."""
    found: dict[str, str] = {}
    for parent in reversed(config.__mro__):
        entries = re.split(r"^        (?=\w+: )", (parent.__doc__ or "").partition("Args:\n")[2], flags=re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries) if text}
    return found


def _metavar(kind: Any) -> str:
    if names := choices(kind):
        return "{" + ",".join(names) + "}"
    inner = [k for k in itertools.chain(get_args(kind) or (kind,)) if k is not type(None)]
    return "[true|false]" if kind is bool else "|".join(k.__name__ for k in inner).upper()


def _written(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
