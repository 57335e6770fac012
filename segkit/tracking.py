"""What a run records: `metrics.csv` in its folder, always, and Weights & Biases, a view of the same. The only place that imports wandb.

Shape legend: H W rows and columns, C channels.
"""

import contextlib
import logging
import netrc
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from segkit.config import WandbConfig
from segkit.errors import RunStopped
from segkit.metrics_file import FolderLogger
from segkit.wandb_service import end_service, forget_service, within

log = logging.getLogger(__name__)
FLUSH_SECONDS = 1.0  # between two moments at which wandb's file has all that was logged
# What a server that is gone, or never answers, may cost a run, all in all; what is not uploaded stays in the run folder for `wandb sync`.
INIT_SECONDS = 15.0  # at the start
TABLE_SECONDS = 5.0  # of the calls by which wandb asks the server about a table, and waits for its answer
FINISH_SECONDS = 20.0  # for what is left to upload at the end
STOP_SECONDS = 3.0  # for the same where a signal ends the run: who sent it waits, and may not wait long


class Guarded(Logger):
    """A logger whose failures cost one line on the log, never the run.

    It also undoes two habits of Lightning, which numbers steps from 0 and adds an `epoch` that says nothing in a run of one pass.

    Args:
        inner: The logger that does the work.
        label: What it is called where it fails.
    """

    def __init__(self, inner: Logger, label: str) -> None:
        super().__init__()
        self.inner, self.label, self.warned = inner, label, False

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    @property
    def version(self) -> str:
        """None: a run is named by its folder."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The run folder."""
        return self.inner.save_dir

    def attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call; the first exception is one warning, the later ones are silent."""
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not self.warned:
                log.warning("%s failed, training goes on without it: %s", self.label, one_line(error))
            self.warned = True

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record `metrics` of Lightning's `step`, the number of optimiser steps done less one."""
        assert step is not None, "a metric belongs to a step"
        self.attempt(self.inner.log_metrics, {key: value for key, value in metrics.items() if key != "epoch"}, step + 1)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: what may be seen of the configuration is given to `build_loggers`, and only that."""

    def finalize(self, status: str) -> None:
        """Nothing: each row is saved when it is logged, and a run ends with `finish`, after its final table."""


def first_process() -> bool:
    """Whether this is the process that writes files, known before the processes meet (then only do a further node's learn their rank)."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0 and os.environ.get("NODE_RANK", "0") == "0"


def build_loggers(
    config: WandbConfig, run_folder: Path, run_name: str, run_config: Mapping[str, Any], tags: Sequence[str], resume: bool
) -> tuple[list[Logger], str]:
    """The loggers of a run, and one line that says where W&B's half goes.

    The W&B run has the run folder's name as its id, so that a resumed run is the same one there. Beside the numbers, and the load of the
    machine, W&B learns nothing but what is given here: no command line, environment, host name, code or git state.

    Args:
        config: Tracking options.
        run_folder: `runs/<name>/<run id>`.
        run_name: The name that W&B shows.
        run_config: What W&B shows of the configuration: flat, and chosen by the caller, for it may be seen by others.
        tags: Words to find the run by, added to `config.tags`.
        resume: The run folder holds an earlier part of this run.

    Returns:
        The loggers, none on other ranks than 0, and the line.
    """
    if not first_process():
        return [], ""
    folder = Guarded(FolderLogger(run_folder), "metrics.csv")
    try:
        run, line = _start(config, run_folder, run_folder.name, run_name, run_config, tags, resume)
    except ImportError:
        return [folder], "disabled: wandb is not installed (pip install wandb)"
    except Exception as error:
        return [folder], f"disabled: it did not start ({one_line(error)})"
    if run is None:
        return [folder], line
    logger = WandbLogger(experiment=run, save_dir=run_folder, project=config.project, log_model=False)
    return [folder, Guarded(logger, "W&B")], line


def _start(
    config: WandbConfig,
    run_folder: Path,
    run_id: str,
    run_name: str,
    run_config: Mapping[str, Any],
    tags: Sequence[str],
    resume: bool,
    job_type: str | None = None,
) -> tuple[Any, str]:
    """The W&B run, None where it is disabled, and the line for the header."""
    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # wandb takes an empty one for a mode of that name
    mode = os.environ.get("WANDB_MODE", "auto") if config.mode == "auto" else config.mode
    if mode == "disabled":
        return None, "disabled"
    # Read when wandb is imported. Its error reporting goes to the same server: where that hangs, so does the end of the process, for 20 s.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    def init(mode: str) -> Any:
        settings = wandb.Settings(
            mode=mode,
            silent=True,
            console="off",
            host="-",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,  # the command line, the program, the user and the machine
            x_save_requirements=False,
            init_timeout=INIT_SECONDS,
            login_timeout=INIT_SECONDS,  # of the question for a key, where there is a terminal and none is configured
            finish_timeout=FINISH_SECONDS,  # its default, 0, waits for ever
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=FLUSH_SECONDS,  # its default, 15, is what a killed run would lose
        )
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            job_type=job_type,
            id=run_id,
            name=run_name,
            tags=sorted({*config.tags, *tags}),
            config=dict(run_config),
            dir=str(run_folder),
            resume="allow" if resume else None,
            settings=settings,
        )
        if job_type is None:
            run.define_metric("trainer/global_step")  # the key under which Lightning's logger gives the step
            run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return run

    why = ""
    if mode == "online" or (mode == "auto" and _has_key(wandb.setup().settings, wandb.Settings().base_url)):
        try:
            run = init("online")
            return run, f"online: {run.url}"
        except Exception as error:
            why = f"online failed ({one_line(error)}), so "
            wandb.teardown()  # the service keeps the id of the failed run as one in use
        except BaseException:  # a signal
            end_service()
            raise
    run = init("offline")
    parts = run_folder / "wandb" / "offline-run-*" if resume else Path(run.dir).parent
    return run, f"{why}offline; sync with: wandb sync {parts}"


def _has_key(settings: Any, default_url: str) -> bool:
    """Whether a key is configured, found without the network: in the environment, wandb's settings files, or the netrc file."""
    if settings.api_key or settings.identity_token_file:
        return True
    hosts = {urlsplit(settings.base_url).netloc} | ({"api.wandb.ai"} if settings.base_url == default_url else set())
    paths = [Path(path).expanduser() for path in (os.environ.get("NETRC") or "~/.netrc", "~/_netrc")]
    try:
        return any(netrc.netrc(path).authenticators(host) for path in paths if path.is_file() for host in hosts)
    except (netrc.NetrcParseError, OSError, ValueError):  # the last: bytes that are no text
        return False


def rewind(loggers: Sequence[Logger], step: int) -> None:
    """Tell the loggers that the run goes on from `step`. (W&B has no rewind; the steps that are repeated come out the same.)"""
    for logger in loggers:
        if isinstance(logger, Guarded) and isinstance(logger.inner, FolderLogger):
            logger.attempt(logger.inner.rewind, step)


def log_panels(
    loggers: Sequence[Logger],
    step: int,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    class_names: Sequence[str],
    ignore_index: int,
    titles: Sequence[str],
) -> None:
    """Show images [H, W, C] with their masks and predictions [H, W], all uint8, in W&B, where classes are switched on and off by name.

    W&B shows images side by side only where they have one size: smaller ones get a margin that is ignored.
    """
    labels = {**dict(enumerate(class_names)), ignore_index: "ignored"}

    def padded(array: np.ndarray, value: int) -> np.ndarray:
        margin = [(0, max(mask.shape[axis] for mask in masks) - array.shape[axis]) for axis in (0, 1)]
        return np.pad(array, [*margin, (0, 0)][: array.ndim], constant_values=value)

    def send(logger: WandbLogger) -> None:
        import wandb

        shown = [
            wandb.Image(
                padded(image, 0),
                caption=title,
                masks={
                    "prediction": {"mask_data": padded(prediction, ignore_index), "class_labels": labels},
                    "truth": {"mask_data": padded(mask, ignore_index), "class_labels": labels},
                },
            )
            for image, mask, prediction, title in zip(images, masks, predictions, titles, strict=True)
        ]
        logger.experiment.log({"val/panels": shown, "trainer/global_step": step})

    for guarded, logger in _wandb(loggers):
        guarded.attempt(send, logger)


def log_table(
    loggers: Sequence[Logger], key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], summary: Mapping[str, float]
) -> None:
    """Show a table and the numbers that stand for the run, such as its final scores, in W&B."""

    def send(logger: WandbLogger) -> None:
        import wandb

        logger.experiment.summary.update(dict(summary))  # first, for the table may fail
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        within(TABLE_SECONDS, lambda: logger.experiment.log({key: table}))

    for guarded, logger in _wandb(loggers):
        guarded.attempt(send, logger)


def log_ablation(
    config: WandbConfig,
    folder: Path,
    name: str,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]],
    figures: Mapping[str, Path],
    summary: Mapping[str, float | str],
) -> str:
    """Show a finished ablation in W&B: one run of its group, of job type `summary`; told again, it is the same run that goes on.

    Args:
        config: Tracking options; the group is `name` where they have none.
        folder: Of the ablation; `wandb/` below it.
        name: Of the ablation.
        tables: Columns and rows by title.
        figures: PNG files by title.
        summary: Numbers and words that stand for the ablation, such as an arm's difference and verdict.

    Returns:
        One line that says where they are.
    """
    if not first_process():
        return ""
    marker = folder / "wandb" / "summary_id.txt"
    try:
        again = marker.exists()
        run_id = marker.read_text().strip() if again else uuid.uuid4().hex[:12]
        grouped = replace(config, group=config.group or name)
        run, line = _start(grouped, folder, run_id, name, {}, ["summary"], again, job_type="summary")
        if run is None:
            return line
        marker.write_text(run_id + "\n")
    except ImportError:
        return "disabled: wandb is not installed (pip install wandb)"
    except Exception as error:
        return f"disabled: it did not start ({one_line(error)})"
    try:
        import wandb

        shown = {
            title: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
            for title, (columns, rows) in tables.items()
        }
        run.summary.update(dict(summary))
        drawn = {title: wandb.Image(str(path)) for title, path in figures.items()}
        within(TABLE_SECONDS, lambda: run.log({**shown, **drawn}))
    except Exception as error:
        line = f"incomplete ({one_line(error)}); {line}"
    return "; ".join([*_finish(run), line])


@contextlib.contextmanager
def tracked(loggers: Sequence[Logger]) -> Iterator[None]:
    """Ends the W&B run where the block is left early, which otherwise is the end of the process: at a signal within `STOP_SECONDS`."""
    try:
        yield
    except (RunStopped, SystemExit, KeyboardInterrupt):
        finish(loggers, 1, STOP_SECONDS)
        raise
    except Exception:
        finish(loggers, 1)
        raise


def finish(loggers: Sequence[Logger], code: int = 0, seconds: float | None = None) -> None:
    """End the W&B run; waits for uploads, at most `FINISH_SECONDS`.

    Args:
        loggers: Of the run.
        code: The exit code with which the run ends.
        seconds: Wait no longer than this.
    """
    for _, logger in _wandb(loggers):
        for problem in _finish(logger.experiment, code, seconds):
            log.warning("W&B: %s", problem)


def _finish(run: Any, code: int = 0, seconds: float | None = None) -> list[str]:
    """Ends a run; what W&B has not taken by then is a line that says how to send it later."""
    folder = Path(run.dir).parent
    try:
        if seconds is None:
            run.finish(code)
        else:
            within(seconds, lambda: run.finish(code))
    except Exception as error:
        if seconds is not None:
            end_service()
        else:
            forget_service()
        return [f"not all was uploaded ({one_line(error)}); send it later with: wandb sync {folder}"]
    except BaseException:  # a signal, when all is saved
        end_service()
        raise
    return []


def _wandb(loggers: Sequence[Logger]) -> list[tuple[Guarded, WandbLogger]]:
    """Those of `loggers` that write to W&B, with their guards."""
    return [(guarded, guarded.inner) for guarded in loggers if isinstance(guarded, Guarded) and isinstance(guarded.inner, WandbLogger)]


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name; of what pydantic refuses the name and the rule: the value may be a key."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return f"{lines[1]}: {lines[2].partition(' [')[0]}" if "validation error" in lines[0] and len(lines) > 2 else lines[0]
