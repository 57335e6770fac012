import io
import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from segkit.console import header, score_table


def shown(renderable, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def scores(iou):
    present = [value for value in iou if not math.isnan(value)]
    return SimpleNamespace(iou=iou, miou=sum(present) / len(present), accuracy=0.9, mean_dice=0.75)


def test_every_class_and_the_means():
    text = shown(score_table(scores((0.5, 0.25)), ["sky", "pole"], "validation at step 40"))
    assert "validation at step 40" in text
    assert "mIoU 0.3750   accuracy 0.9000   mean Dice 0.7500" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["sky", "0.5000"] in lines
    assert ["pole", "0.2500"] in lines
    assert "absent" not in text


def test_absent_classes_are_said_to_be_absent():
    text = shown(score_table(scores((0.5, math.nan, math.nan)), ["sky", "pole", "cat"]))
    assert "absent, so left out of the means: pole, cat" in text
    assert text.count("absent") == 3
    assert "nan" not in text


def test_many_classes_stand_side_by_side():
    names = [f"class{i}" for i in range(25)]
    text = shown(score_table(scores(tuple(i / 100 for i in range(25))), names))
    assert len(text.splitlines()) <= 12 + 6
    assert all(f"class{i} " in text and f"0.{i:02d}00" in text for i in range(25))


def test_names_are_not_markup():
    assert "[bold]" in shown(score_table(scores((0.5,)), ["[bold]"]))
    assert "runs/[x]/1" in shown(header({"run": "runs/[x]/1"}))


def test_the_header_aligns_names_and_values():
    assert shown(header({"operator": "transpose", "run": "a"})).splitlines() == ["operator  transpose", "run       a"]


def test_a_path_in_the_header_is_never_broken():
    path = "runs/" + "x" * 200
    console = Console(file=io.StringIO(), width=40)
    console.print(header({"run folder": path}), soft_wrap=True)
    assert path in console.file.getvalue()


def test_a_terminal_that_goes_leaves_the_run_without_a_reader(tmp_path):
    """Its every write is an input/output error then, where a pipe's is a signal of its own."""
    program = """
import sys
from rich.progress import Progress
from segkit.console import RunConsole
console = RunConsole()
bar = Progress(console=console)
bar.start()
print("begun", flush=True)
sys.stdin.readline()
console.print("nobody reads this")
bar.stop()
open("done", "w").close()
"""
    owner, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=terminal, cwd=tmp_path, env=environment)
    os.close(terminal)
    said = b""
    while b"begun" not in said:
        said += os.read(owner, 1000)
    os.close(owner)
    process.communicate(b"go on\n", timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "done").exists()
