import io

import pytest
from rich.console import Console

from segkit.callbacks import Throughput
from segkit.progress import Progress


def train(make_task, make_trainer, steps=20, **options):
    console = Console(file=io.StringIO(), width=120, **options)
    make_trainer([Throughput(), Progress(console)], steps, val_every=10).fit(make_task(steps))
    return console.file.getvalue()


def test_a_log_file_gets_a_line_per_tenth_and_a_table_per_validation(make_task, make_trainer):
    lines = train(make_task, make_trainer).splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == [f"{step}/20" for step in range(2, 21, 2)]
    assert all("loss " in line and "images/s" in line and line.endswith("left") for line in steps)
    assert "mIoU" not in steps[4]
    assert "mIoU" in steps[5]
    assert steps[-1].endswith("0:00 left")
    assert [line.split()[-1] for line in lines if line.startswith("validation at step")] == ["10"]  # the last is the result
    assert sum(line.startswith("absent, so left out of the means: pole") for line in lines) == 1


def test_a_terminal_gets_a_bar(make_task, make_trainer):
    text = train(make_task, make_trainer, force_terminal=True, color_system=None)
    assert "20/20" in text
    assert "loss " in text
    assert "images/s" in text
    assert "mIoU" in text
    assert "step 2/20" not in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_an_exception_gives_the_terminal_back(make_task, make_trainer):
    task = make_task()

    def fail(*args):
        raise RuntimeError("in the middle")

    task.training_step = fail
    progress = Progress(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(RuntimeError, match="in the middle"):
        make_trainer([progress]).fit(task)
    assert progress.bar is None
    assert progress.console.file.getvalue().endswith("\x1b[?25h")
