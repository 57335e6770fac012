"""Command lines: options from the dataclasses of `segkit.config`, files that flags beat in any order, errors in one line.

Imports neither torch nor Lightning, and jsonargparse only for a command line that has values to check, so that `--help` and a
mistyped option answer at once.
"""

import difflib
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin

import yaml

from segkit.architectures import PREFIX, REFUSED
from segkit.cli.options import choices, options, takes_several
from segkit.cli.running import run
from segkit.config import TrainConfig, from_dict
from segkit.errors import SegkitError, printable
from segkit.yaml_file import LARGEST, check_yaml, reason

if TYPE_CHECKING:
    from segkit.cli.typed import TypedParser

__all__ = ["FILES", "Parser", "choices", "given", "options", "run", "takes_several"]

FILES = ("--config", "--resume")  # what gives many options at once is read first, so that single flags have the last word
FILE_WORDS = ("config", "print_config")  # what a command that takes a file has besides
LONGEST = 200  # characters of a value in an error


def given(words: Sequence[str], name: str) -> str | None:
    """The value that a command line gives an option, before it is parsed: `--name value` or `--name=value`."""
    for word, following in itertools.zip_longest(words, words[1:]):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def saved_config(values: Any, checkpoint: str | Path) -> TrainConfig:
    """How a run was started, as its checkpoint says.

    Raises:
        SegkitError: What it says is no configuration of this version.
    """
    if not isinstance(values, dict):
        raise SegkitError(f"{checkpoint} does not say how it was trained; give a run of train.py")
    Parser(TrainConfig, "", file=False).hold(values, f"{checkpoint} does not fit this version of segkit")
    return from_dict(TrainConfig, values)


def shortened(text: str, most: int = LONGEST) -> str:
    """A text that is not longer than a line should be; what is left out is in the middle."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def too_large(path: str) -> bool:
    """Whether there is a file of that name which no person has written."""
    try:
        return Path(path).stat().st_size > LARGEST
    except (OSError, ValueError):  # the parser says what is wrong
        return False


class Parser:
    """A parser whose errors are one line that names the value, the rule and the nearest valid choice; exit code 2.

    Args:
        config: The dataclass whose fields are the options.
        description: First line of `--help`.
        file: Whether `--config FILE` is an option.
    """

    def __init__(self, config: type, description: str, file: bool = True) -> None:
        self.prog = Path(sys.argv[0]).name
        self._config, self._description, self._file = config, description, file
        self._kinds, self._where = dict(options(config)), ""
        self._added: list[tuple[str, dict[str, Any]]] = []

    def add_argument(self, name: str, **settings: Any) -> None:
        """Adds an option or a word that the configuration does not have, as argparse takes it."""
        self._added.append((name, settings))

    def arrange(self, args: Sequence[str]) -> list[str]:
        """Moves files to the front, completes flags (`--compile` is `--compile=true`) and gathers lists (`--upsample a b`: `[a,b]`)."""
        first: list[str] = []
        rest: list[str] = []
        words = iter(args)
        for word in words:
            name = word.split("=", 1)[0]
            if name in FILES:
                first += [word] if "=" in word else [word, *(w for w in [next(words, None)] if w is not None)]
            else:
                rest.append(word)
        for i, word in enumerate(rest):
            kind = self._kinds.get(word.removeprefix("--"))
            following = list(itertools.takewhile(lambda w: not w.startswith("--"), rest[i + 1 :]))
            if kind is bool and (not following or following[0].lower() not in ("true", "false")):
                rest[i] = f"{word}=true"
            elif following and takes_several(kind):
                bare = not following[0].startswith(("[", "{"))
                if len(following) > 1 or (bare and get_origin(kind) is list):
                    rest[i + 1 : i + 1 + len(following)] = [f"[{','.join(following)}]" if bare else " ".join(following)]
        return first + rest

    def read(self, args: Sequence[str]) -> dict[str, Any]:
        """Parses `args` to nested plain dictionaries, `{"upsample": ..., "data": {...}, ...}`."""
        words = self.arrange(args)
        self._answer(words)
        for word, following in itertools.zip_longest(words, words[1:]):
            if (path := following if word == "--config" else word.removeprefix("--config=")) and path != word and too_large(path):
                self.error(f"--config {path}: larger than {LARGEST} bytes; give a YAML file, such as the config.yaml of a run")
        try:
            values: dict[str, Any] = self._typed().parse_args(words).as_dict()
        except UnicodeDecodeError:
            self.error("--config: the file is not text; give a YAML file, such as the config.yaml of a run")
        values.pop("config", None)
        return values

    def _answer(self, words: Sequence[str]) -> None:
        """Leaves with what needs no value to be read: the help, or the first option that is none."""
        if "--help" in words or "-h" in words:
            from segkit.cli.help import help_text

            print(help_text(self.prog, self._description, self._config, self._file, self._added), end="")
            sys.exit(0)
        groups = {name[:at] for name in self._kinds for at, letter in enumerate(name) if letter == "."}
        known = {*self._kinds, *groups, *(name.lstrip("-") for name, _ in self._added), *(FILE_WORDS if self._file else ())}
        for word in words:
            name = word.split("=", 1)[0].removeprefix("--").removesuffix("+")
            within = any(name.startswith(f"{option}.") for option in self._kinds)  # such as trainer.extra.NAME
            if word.startswith("--") and name and name not in known and not within:
                self.error(self._no_option(word))

    def _typed(self) -> "TypedParser":
        from segkit.cli.typed import TypedParser

        parser = TypedParser(self.prog, self._config, self._file, self._refuse)
        for name, settings in self._added:
            parser.add_argument(name, **settings)
        return parser

    def hold(self, values: Any, where: str) -> None:
        """Raises a SegkitError, which begins with `where`, for nested plain values of which one is not of its option's type."""
        try:
            check_yaml(yaml.safe_dump(values))
        except (yaml.YAMLError, RecursionError) as error:
            raise SegkitError(f"{where}: {reason(error)}") from error
        self._where = where
        self._typed().parse_object(values)

    def error(self, line: str) -> NoReturn:
        """Prints one line on stderr and leaves with exit code 2; of values that are no command line, it is a SegkitError."""
        if self._where:
            raise SegkitError(f"{self._where}: {line}")
        sys.stderr.write(f"{self.prog}: error: {printable(line)}\n")
        sys.exit(2)

    def _refuse(self, message: str) -> NoReturn:
        self.error(self._one_line(message))

    def _one_line(self, message: str) -> str:
        key = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        name = f"{key[1]}.{key[2]}" if key else None
        key = re.search(r"unrecognized arguments: (\S+)|Option '([\w.]+)' is not accepted", message)
        name = name or (key and (key[1] or key[2]))
        if name:
            return self._no_option(name)
        key = re.search(r'Parser key "([\w.]+)"', message) or re.search(r"argument --([\w.]+)", message)
        value = re.search(r"Given value: (.*)|Got value: (.*)", message)
        if key and key[1] in self._kinds and value:
            given = shortened(value[1] or value[2] or "''")
            valid = choices(self._kinds[key[1]])
            folded = {name.lower(): name for name in valid}
            words = [word for word in re.findall(r"[\w:-]+", given) if word not in valid]
            near = [folded[m] for word in words for m in difflib.get_close_matches(word.lower(), folded, n=1)]
            hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
            if given.startswith(PREFIX) and (why := REFUSED.get(given.removeprefix(PREFIX))):
                hint = f"; {given} is left out: {why}"
            rule = f"choose from {', '.join(map(str, valid))}" if valid else f"expected {self._type_name(self._kinds[key[1]])}"
            return f"--{key[1]} {given}: {rule}{hint}"
        return shortened(
            " ".join(message.replace("Parser key ", "--").replace("Problems parsing config", "--config").replace('"', "").split()),
            4 * LONGEST,
        )

    def _no_option(self, word: str) -> str:
        name = word.split("=")[0].removeprefix("--")
        last = name.rsplit(".", 1)[-1]
        near = [k for k in self._kinds if k.rsplit(".", 1)[-1] == last] or difflib.get_close_matches(name, self._kinds, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "--help lists the options"
        return f"unknown option {word!r}; {hint}"

    @staticmethod
    def _type_name(kind: Any) -> str:
        return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "").replace(" | None", "")
