"""What an ablation shows while it runs: on a terminal a table of arms and seeds, in a log file one line per event."""

import csv
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segkit.ablation.estimate import run_seconds, time_left, words
from segkit.ablation.trial import Trial, results_folder

REFRESH_SECONDS = 1.0
READ_SECONDS = 0.05  # hundreds of running trials are looked at less often
TAIL = 32 * 1024  # bytes of metrics.csv that are read; an interval between two validations may be longer, so the last mIoU is kept
RUNNING_LINES = 8
MARKS = {"waiting": ".", "running": ">", "finished": "+", "failed": "x", "busy": "b", "interrupted": "-"}
STYLES = {"waiting": "dim", "running": "cyan", "finished": "green", "failed": "bold red", "busy": "yellow", "interrupted": "yellow"}


class LiveTable:
    """Told of every state (`run_all`'s `changed`), shows it; reads only what running trials write, once a second.

    Args:
        trials: All runs by arm and seed.
        costs: By arm, as `estimate.run_seconds` needs them.
        slots: Runs at a time.
        console: Where to; default: standard output.
        queue: Whether a run that is submitted may have to wait.
    """

    def __init__(
        self,
        trials: Mapping[tuple[str, int], Trial],
        costs: Mapping[str, Mapping[str, Any]],
        slots: int,
        console: Console | None = None,
        queue: bool = False,
    ) -> None:
        self.trials, self.slots, self.queue = trials, slots, queue
        self.console = console or Console()
        self.arms, self.seeds = list(dict.fromkeys(arm for arm, _ in trials)), list(dict.fromkeys(seed for _, seed in trials))
        self.expected = {pair: run_seconds(trial.config, costs[pair[0]], trial.split) for pair, trial in trials.items()}
        self.steps = {arm: int(costs[arm]["steps"]) for arm in self.arms}
        self.states: dict[tuple[str, int], str] = {}
        self.results: dict[tuple[str, int], tuple[float | None, float]] = {}  # mIoU and seconds of finished runs
        self.reached: dict[tuple[str, int], tuple[int, float | None]] = {}  # step and last validation's mIoU of running ones
        self.began, self.drawn = time.monotonic(), float("-inf")
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> "LiveTable":
        """Takes the terminal's last lines."""
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leaves the table as it is at last."""
        if self.live:
            self._draw()
            self.live.stop()

    def __call__(self, states: Mapping[str, str]) -> None:
        """Shows the states of all trials, given by folder."""
        running = [pair for pair, state in self.states.items() if state == "running"]
        due = time.monotonic() - self.drawn >= max(REFRESH_SECONDS, len(running) * READ_SECONDS)
        if due:
            self.drawn = time.monotonic()
            self.reached |= {pair: self._reached(pair) for pair in running}
        events = list(self._changes({pair: states[trial.folder] for pair, trial in self.trials.items()}))
        for line, state in events:
            if self.live is None or state == "failed":
                self.console.print(Text(time.strftime("%H:%M:%S ") + line), soft_wrap=True)
        if self.live and (due or events):
            self._draw()

    def _changes(self, now: Mapping[tuple[str, int], str]) -> Iterator[tuple[str, str]]:
        """Takes note of new states and yields a line about each, and the state."""
        first = not self.states
        fresh = {pair: state for pair, state in now.items() if state != self.states.get(pair)}
        fresh = {pair: s for pair, s in fresh.items() if (self.states.get(pair), s) != ("busy", "running")}  # asked for again and again
        self.states |= fresh
        self.results |= {pair: self._result(pair) for pair, state in fresh.items() if state == "finished"}
        if first:
            counts = [f", {sum(s == state for s in now.values())} {state}" for state in ("finished", "failed") if state in now.values()]
            yield f"{len(now)} runs{''.join(counts)}{self._left('; about {} left')}", ""
        else:
            yield from ((self._event(pair, state), state) for pair, state in fresh.items())

    def _event(self, pair: tuple[str, int], state: str) -> str:
        trial = self.trials[pair]
        done = sum(s == "finished" for s in self.states.values())
        line = f"[{done}/{len(self.trials)}] {pair[0]} seed {pair[1]} "
        if state == "finished":
            miou, seconds = self.results[pair]
            return f"{line}finished: mIoU {_number(miou)}, {words(seconds)}{self._left('; about {} left')}"
        if state == "failed":
            about = _read(Path(trial.folder) / "failed.json")
            return f"{line}failed in its {about.get('stage', 'job')}: {about.get('message')}; log: {trial.folder}/log.txt"
        if state == "running":
            return line + ("queued" if self.queue else "goes on" if (Path(trial.folder) / "checkpoints/last.ckpt").exists() else "started")
        other = {"busy": "is run by another process", "interrupted": "interrupted; it goes on at the next start of this ablation"}
        return line + other.get(state, state)

    def _result(self, pair: tuple[str, int]) -> tuple[float | None, float]:
        trial = self.trials[pair]
        took = _read(Path(trial.folder) / "done.json")
        return _read(results_folder(trial) / "metrics.json").get("miou"), took.get("seconds", 0.0) + took.get("evaluation_seconds", 0.0)

    def _reached(self, pair: tuple[str, int]) -> tuple[int, float | None]:
        """Step and mIoU of the last validation, from the end of `metrics.csv`."""
        step, miou = self.reached.get(pair, (0, None))
        try:
            with (Path(self.trials[pair].folder) / "metrics.csv").open("rb") as file:
                names = file.readline().decode().rstrip("\n").split(",")
                file.seek(max(file.tell(), file.seek(0, 2) - TAIL))
                lines = file.read().decode(errors="replace").split("\n")[:-1]
        except OSError:
            return step, miou
        rows = [dict(zip(names, row, strict=True)) for row in csv.reader(lines) if len(row) == len(names)]
        scored = [row["val/miou"] for row in rows if row.get("val/miou")]
        return int(rows[-1]["step"]) if rows else step, float(scored[-1]) if scored else miou

    def _left(self, form: str) -> str:
        """Time until all is through, in words: the estimates, corrected by what finished runs really took."""
        known = [(sum(self.expected[pair]), seconds) for pair, (_, seconds) in self.results.items() if seconds]
        factor = sum(took for _, took in known) / sum(planned for planned, _ in known) if known else 1.0
        runs = []
        for pair, state in self.states.items():
            if state in ("waiting", "running", "busy"):
                training, evaluation = self.expected[pair]
                done = min(self.reached.get(pair, (0, None))[0] / self.steps[pair[0]], 1.0)
                runs.append(factor * (training * (1 - done) + evaluation))
        return form.format(words(time_left(runs, self.slots))) if runs else ""

    def _draw(self) -> None:
        assert self.live is not None
        self.live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        """The line of totals, the table, and the runs in hand."""
        counts = {state: sum(s == state for s in self.states.values()) for state in STYLES}
        totals = [f"{counts['finished']} of {len(self.trials)} runs finished"]
        totals += [f"{n} {state}" for state, n in counts.items() if n and state not in ("finished", "waiting")]
        totals += [f"{words(time.monotonic() - self.began)} so far{self._left(', about {} left')}"]
        running = [pair for pair in self.trials if self.states.get(pair) == "running"]
        lines = [Text(self._running(pair), style="cyan") for pair in running[:RUNNING_LINES]]
        lines += [Text(f"and {len(running) - RUNNING_LINES} more", style="cyan")] if len(running) > RUNNING_LINES else []
        return Group(Text(", ".join(totals), style="bold"), self._table(), *lines)

    def _running(self, pair: tuple[str, int]) -> str:
        step, miou = self.reached.get(pair, (0, None))
        folder = Path(self.trials[pair].folder)
        if not (folder / "log.txt").exists():
            return f"{pair[0]} seed {pair[1]}: queued"
        so_far = f", val mIoU {_number(miou)}" if miou is not None else ""
        phase = "scoring" if (folder / "metrics.json").exists() else f"step {step}/{self.steps[pair[0]]}"
        return f"{pair[0]} seed {pair[1]}: {phase}{so_far}"

    def _table(self) -> Table:
        """A number or word for each run where the terminal is wide enough, else a mark."""
        wide = max(map(len, self.arms)) + 9 * (len(self.seeds) + 1) <= self.console.width
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
        table.add_column("arm", overflow="fold" if wide else "ellipsis", no_wrap=not wide)
        for seed in self.seeds if wide else ["seeds"]:
            table.add_column(f"seed {seed}" if wide else str(seed), justify="right" if wide else "left", no_wrap=True)
        table.add_column("mean", justify="right", no_wrap=True)
        for arm in self.arms:
            pairs = [(arm, seed) for seed in self.seeds]
            scores = [miou for miou, _ in (self.results[pair] for pair in pairs if pair in self.results) if miou is not None]
            mean = Text(_number(sum(scores) / len(scores)) if scores else "", style="bold")
            cells = [self._cell(pair, wide) for pair in pairs]
            table.add_row(Text(arm), *(cells if wide else [Text().join(cells)]), mean)
        if not wide:
            used = [state for state in MARKS if state in self.states.values()]
            table.caption = "  ".join(f"{MARKS[state]} {state}" for state in used)
        return table

    def _cell(self, pair: tuple[str, int], wide: bool) -> Text:
        state = self.states.get(pair, "waiting")
        text = {"waiting": ".", "interrupted": "stopped"}.get(state, state)
        if state == "finished":
            text = _number(self.results[pair][0])
        elif state == "running":
            text = f"{self.reached.get(pair, (0, None))[0] / self.steps[pair[0]]:.0%}"
        return Text(text if wide else MARKS[state], style=STYLES[state])


def _number(miou: float | None) -> str:
    return "none" if miou is None else f"{miou:.3f}"


def _read(path: Path) -> dict[str, Any]:
    """A JSON file, or nothing where a slow disk does not show it yet."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
