"""The table of `docs/architectures.md` is that of the code, and its commands are understood."""

import re
import shlex
from pathlib import Path

import pytest

from segkit.architectures import ARCHITECTURES, REFUSED
from segkit.cli import ablate
from segkit.cli.parsing import Parser
from segkit.config import TrainConfig, from_dict

PAGE = (Path(__file__).parents[1] / "docs/architectures.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_code():
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `smp:")]
    told = {row[0].removeprefix("smp:"): (row[1], row[3], row[4]) for row in rows}
    assert told == {
        name: (str(its.operators or "none"), its.dropout or "none", "2" if its.pooled else "1") for name, its in ARCHITECTURES.items()
    }
    assert all(f"{name} is left out: {why}" in PAGE for name, why in REFUSED.items())


@pytest.mark.parametrize("line", re.findall(r"^    python scripts/(.*)", PAGE, re.MULTILINE))
def test_its_commands_are_understood(line):
    script, *words = shlex.split(line)
    if script == "ablate.py":
        assert len(ablate.read(words).axes) == 1
    else:
        assert from_dict(TrainConfig, Parser(TrainConfig, "").read(words)).decoder.startswith("smp:")
