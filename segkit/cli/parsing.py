"""Command lines: options from the dataclasses of `segkit.config`, files that flags beat in any order, errors in one line.

Imports neither torch nor Lightning, so that `--help` and every typing error answer at once.
"""

import difflib
import itertools
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]

from segkit.errors import RunFailed, RunStopped, SegkitError

FILES = ("--config", "--resume")  # what gives many options at once is read first, so that single flags have the last word


def options(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a configuration class with its type: `("data.crop", int)`, ..."""
    hints = get_type_hints(config)
    for field in fields(config):
        kind = hints[field.name]
        if is_dataclass(kind):
            yield from options(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + field.name, kind


def declared(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a configuration class that has a plain default, with it: `("data.crop", 128)`, ..."""
    hints = get_type_hints(config)
    for field in fields(config):
        if is_dataclass(hints[field.name]):
            yield from declared(hints[field.name], f"{prefix}{field.name}.")
        elif field.default is not MISSING:
            yield prefix + field.name, field.default


def choices(kind: Any) -> tuple[str, ...]:
    """The names that a type admits: those of every `Literal` in it."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(dict.fromkeys(name for part in get_args(kind) for name in choices(part)))


def takes_several(kind: Any) -> bool:
    """Whether a type admits a list."""
    return get_origin(kind) in (list, tuple) or any(takes_several(part) for part in get_args(kind))


def given(words: Sequence[str], name: str) -> str | None:
    """The value that a command line gives an option, before it is parsed: `--name value` or `--name=value`."""
    for word, following in itertools.zip_longest(words, words[1:]):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


class Parser(ArgumentParser):
    """A parser whose errors are one line that names the value, the rule and the nearest valid choice; exit code 2.

    Args:
        config: The dataclass whose fields are the options.
        description: First line of `--help`.
        file: Whether `--config FILE` is an option.
    """

    def __init__(self, config: type, description: str, file: bool = True) -> None:
        set_parsing_settings(docstring_parse_attribute_docstrings=False)
        super().__init__(prog=Path(sys.argv[0]).name, description=description, allow_abbrev=False)
        self._kinds = dict(options(config))
        if file:
            self.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the options below; flags beat it")
        self.add_class_arguments(config, None)
        # as declared: a nested default is an instance, in which __post_init__ has decided already what "auto" means
        self.set_defaults(dict(declared(config)))

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
        try:
            values: dict[str, Any] = self.parse_args(self.arrange(args)).as_dict()
        except UnicodeDecodeError:
            self.error("--config: the file is not text; give a YAML file, such as the config.yaml of a run")
        values.pop("config", None)
        return values

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line on stderr and leaves with exit code 2."""
        sys.stderr.write(f"{self.prog}: error: {self._one_line(message)}\n")
        sys.exit(2)

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
            given = value[1] or value[2]
            valid = choices(self._kinds[key[1]])
            near = [m for word in re.findall(r"[\w-]+", given) if word not in valid for m in difflib.get_close_matches(word, valid, n=1)]
            hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
            rule = f"choose from {', '.join(map(str, valid))}" if valid else f"expected {self._type_name(self._kinds[key[1]])}"
            return f"--{key[1]} {given}: {rule}{hint}"
        return " ".join(message.replace("Parser key ", "--").replace('"', "").split())

    def _no_option(self, word: str) -> str:
        name = word.split("=")[0].removeprefix("--")
        last = name.rsplit(".", 1)[-1]
        near = [k for k in self._kinds if k.rsplit(".", 1)[-1] == last] or difflib.get_close_matches(name, self._kinds, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(f'--{n}' for n in near)}?" if near else "--help lists the options"
        return f"unknown option {word!r}; {hint}"

    @staticmethod
    def _type_name(kind: Any) -> str:
        return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "").replace(" | None", "")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a command and turns a user's mistake into one line and exit code 2, a run that fails or is stopped into one line too."""
    try:
        main(sys.argv[1:])
    except SegkitError as error:
        sys.exit(_complain(error, 2))
    except RunFailed as error:
        sys.exit(_complain(error, 1))
    except RunStopped as stopped:
        sys.exit(_complain(stopped, 128 + stopped.signal_number))
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as leave:  # Lightning answers a SIGTERM that reaches it, as in an evaluation, by an exit of its own with code 0
        sys.exit(leave.code if type(leave) is SystemExit else 128 + signal.SIGTERM)


def _complain(error: Exception, code: int) -> int:
    if str(error):  # of several processes that are stopped, one says so
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {'' if isinstance(error, RunStopped) else 'error: '}{error}\n")
    return code
