"""How long a command takes to answer, and what imports take, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable

from segkit.benchmark.bench import MODULES, Bench, repository
from segkit.benchmark.report import Results, Row

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
    times = bench.time(calls, warm=1, wall=True)
    rows = [
        Row(name, times[name], "s", measure="value", goal=0.15 if name.startswith("train.py") else None, group="wall time of a process")
        for name in times
    ]
    for peer in ("pytorch_lightning", *peers):
        rows.append(Row(f"import segkit / {peer}", times["import segkit"], "s", times[f"import {peer}"], peer, group="imports"))
    return Results("startup", "how long a command and an import take, Python's own start included", rows)


def _process(*words: str, code: int = 0) -> Callable[[], None]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository()), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def run() -> None:
        result = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == code, result.stderr[-500:]

    return run
