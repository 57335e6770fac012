"""What a training step has to say, its loss and the like, shown and written without a millisecond of every step.

Lightning's `log` takes that long for three values: it looks up who calls, and keeps a metric of each. Most steps are never written, so here
nothing is done for them; those that are go to where `log` puts them: `trainer.callback_metrics`, and the loggers, a row per step.
"""

from collections.abc import Mapping

import torch
from pytorch_lightning import Trainer
from torch import Tensor

PREFIX = "train/"


def written(trainer: Trainer, step: int) -> bool:
    """Whether the loggers get the values of the step that makes it `step` optimiser steps: every few, and where the run is told to end."""
    return step % trainer.log_every_n_steps == 0 or trainer.should_stop  # type: ignore[attr-defined]


def shown(trainer: Trainer, step: int) -> bool:
    """Whether a line of `Progress` may show them: those that are written, and the first of each tenth of the run."""
    return written(trainer, step) or step * 10 % trainer.max_steps < 10


def note(trainer: Trainer, values: Mapping[str, Tensor | float]) -> None:
    """Puts values, by names with `PREFIX`, where callbacks find the newest ones; a tensor stays on its device, and nothing waits for it."""
    trainer.callback_metrics.update({name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()})


def write(trainer: Trainer) -> None:
    """Gives the loggers what has been noted, as values of the step that has just been done."""
    row = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith(PREFIX)}
    for logger in trainer.loggers:
        logger.log_metrics(row, step=trainer.global_step - 1)  # Lightning's numbers start at 0
        logger.save()
