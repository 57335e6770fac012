"""How long a command takes to answer, and what imports take, each in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from segkit.benchmark.bench import MODULES, Bench, repository
from segkit.benchmark.report import Results, Row
from segkit.benchmark.timing import LEAST, interleave

OWN = {"segkit": "segkit", "segkit.task": "segkit.task", "pytorch_lightning": "pytorch_lightning"}  # always there


def measure(bench: Bench) -> Results:
    """Times `train.py --help`, a typing error, and the imports of segkit and of its peers."""
    script = repository() / "scripts" / "train.py"
    command = [str(script)] if script.is_file() else ["-m", "segkit.cli", "train"]
    peers = {peer: module for peer, module in MODULES.items() if peer in bench.peers}
    modules = {**OWN, **peers}
    calls = {
        "python alone": _process("-c", "pass"),
        "train.py --help": _process(*command, "--help"),
        "train.py --lrr 1, an error": _process(*command, "--lrr", "1", code=2),
        **{f"import {name}": _process("-c", f"import {module}") for name, module in modules.items()},
    }
    cpu, seconds = bench.config.clock == "cpu", bench.config.seconds
    clock = _children if cpu else time.perf_counter
    times = interleave(calls, seconds, warm=1 if seconds else 0, least=LEAST if seconds else 1, clock=clock)
    group = f"{'processor' if cpu else 'wall'} time of a process"
    rows = [Row(name, times[name], "s", measure="value", goal=0.15 if name.startswith("train.py") else None, group=group) for name in times]
    for peer in ("pytorch_lightning", *peers):
        rows.append(Row(f"import segkit / {peer}", times["import segkit"], "s", times[f"import {peer}"], peer, group="imports"))
    return Results("startup", "how long a command and an import take, Python's own start included", rows)


def _children() -> float:
    """Seconds of the processors that ended child processes have had."""
    times = os.times()
    return times.children_user + times.children_system


def _process(*words: str, code: int = 0) -> Callable[[], None]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository()), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def run() -> None:
        result = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == code, result.stderr[-500:]

    return run
