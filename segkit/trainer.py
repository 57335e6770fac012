"""Lightning's Trainer as a configuration describes it."""

import atexit
import inspect
import logging
import os
import warnings
from contextlib import nullcontext
from datetime import timedelta
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import StrategyRegistry

from segkit.checkpoint import AtomicCheckpointIO
from segkit.config import TrainerConfig
from segkit.errors import SegkitError, unknown

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # environment variables by which Lightning tells processes apart


def device_count(devices: int | str | list[int], accelerator: str = "auto") -> int:
    """How many devices of one machine `--trainer.devices` means."""
    if isinstance(devices, list):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return max(torch.cuda.device_count(), 1) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, str):
        return int(devices) if devices.isdigit() else len([d for d in devices.split(",") if d])
    return devices


def quiet_lightning() -> None:
    """Leaves out Lightning's notices on hardware it sees and on practice that segkit has chosen on purpose."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*GPU available but not used.*",
        ".*`srun` command is available.*",
        "The AccumulateGrad node's stream does not match.*",  # Lightning wraps the model for CUDA in a stream of its own
        ".*`broadcast_buffers` is deprecated.*",  # its successor is newer than the oldest torch that segkit takes
        ".*sync_dist=True.*",  # the scores come from counts that are summed over the processes already
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)


def leave_process_group() -> None:
    """Parts from the other processes; a Gloo group that is left open at exit ends one of them with SIGABRT."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def build_strategy(name: str, timeout: float) -> Any:
    """Lightning's strategy for several processes, none of which waits longer than `timeout` seconds for another."""
    name = "ddp" if name == "auto" else name
    if name.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):  # nobody could watch over those that they start
        raise SegkitError(f"--trainer.strategy {name}: use ddp, which starts the same processes as commands of their own")
    if name.startswith(("fsdp", "deepspeed")):  # they would clip by the norm of a shard, and average and save shards
        raise SegkitError(f"--trainer.strategy {name}: segkit needs whole tensors in every process; use ddp, these networks fit one GPU")
    if name not in StrategyRegistry or "timeout" not in inspect.signature(StrategyRegistry[name]["strategy"]).parameters:
        return name
    options = {**StrategyRegistry[name]["init_params"], "timeout": timedelta(seconds=timeout)}
    if name.startswith("ddp"):
        options["broadcast_buffers"] = False  # running statistics are averaged before each validation instead of being sent with each step
    return StrategyRegistry[name]["strategy"](**options)


def check_processes(devices: int | str | list[int], num_nodes: int, world: int) -> None:
    """Refuses to train alone, or to wait for ever, where torchrun or srun has started another number of processes.

    Raises:
        SegkitError: The numbers differ, or the environment has another number for the only process.
    """
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # a shell on a node, in which Lightning starts the processes
    started = None if by_hand else os.environ.get("SLURM_STEP_NUM_TASKS")
    started = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else started
    if started and int(started) != world:
        raise SegkitError(
            f"--trainer.devices {devices}, --trainer.num_nodes {num_nodes}: they make {world} processes, but {started} were started; "
            "devices are those of one machine, as --nproc_per_node of torchrun and --ntasks-per-node of srun"
        )
    rank = next((name for name in RANKS if name in os.environ), None)
    if world == 1 and rank and os.environ[rank] != "0":  # nobody would be the first process, which writes
        raise SegkitError(
            f"{rank}={os.environ[rank]} says that this is one of several processes, but --trainer.devices 1 is one; unset {rank}"
        )


class Unprofiled(PassThroughProfiler):
    """Times nothing; Lightning's own does so in 60 generators a step."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """A context in which nothing happens."""
        return self._nothing


def build_trainer(
    config: TrainerConfig,
    *,
    max_steps: int = -1,
    deterministic: bool = False,
) -> pl.Trainer:
    """Builds the Trainer: the whole run is one pass over a stream of batches, validation every so many steps inside it.

    Args:
        config: `--trainer.*`.
        max_steps: Optimiser steps; -1 for evaluation only.
        deterministic: Warn where an algorithm has no form that repeats bit for bit, use that form elsewhere.

    Raises:
        SegkitError: If Lightning refuses the arguments, or `extra` names none of its arguments.
    """
    quiet_lightning()
    world = device_count(config.devices, config.accelerator) * config.num_nodes
    check_processes(config.devices, config.num_nodes, world)
    if world > 1:
        atexit.register(leave_process_group)  # Lightning does so for NCCL only
    arguments: dict[str, Any] = {
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "strategy": config.strategy,
        "precision": config.precision,
        "max_steps": max_steps,
        "max_epochs": -1,
        "accumulate_grad_batches": config.accumulate,
        "gradient_clip_val": config.clip or None,
        "val_check_interval": (config.val_every or 1) * config.accumulate,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": min(config.log_every, max_steps) if max_steps > 0 else 1,
        "logger": False,
        "plugins": [AtomicCheckpointIO()],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "deterministic": "warn" if deterministic else None,
    }
    if config.precision == "16-mixed" and (config.accelerator == "cpu" or not torch.accelerator.is_available()):
        raise SegkitError("--trainer.precision 16-mixed: a CPU has no such arithmetic; use bf16-mixed or 32-true")
    accepted = inspect.signature(pl.Trainer).parameters
    for name in config.extra:
        if name not in accepted:
            raise unknown("argument of Lightning's Trainer", name, accepted)
        if name in arguments:
            raise SegkitError(f"--trainer.extra.{name}: segkit sets this argument itself; use the option of its own (--help lists them)")
        if not isinstance(config.extra[name], kinds := plain_kinds(get_type_hints(pl.Trainer.__init__)[name])):
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
            raise SegkitError(
                f"--trainer.extra.{name} {config.extra[name]!r}: Lightning takes {wanted} there, as far as an option can give it"
            )
    try:
        if world > 1 or config.strategy != "auto":
            arguments["strategy"] = build_strategy(config.strategy, config.timeout)
        trainer = pl.Trainer(**{"profiler": Unprofiled(), **arguments, **config.extra})
    except SegkitError:
        raise
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError, LookupError, AttributeError) as error:
        raise SegkitError(f"--trainer: Lightning refuses these options: {' '.join(str(error).split())}") from error
    if world > 1 and config.extra.get("sync_batchnorm") and trainer.strategy.root_device.type == "cpu":
        raise SegkitError("--trainer.extra.sync_batchnorm true: torch synchronises batch norms on GPUs only; use --norm group on CPUs")
    return trainer


def plain_kinds(hint: Any) -> tuple[type, ...]:
    """Those types in an annotation of which a file or a command line can hold values; objects, such as callbacks, are none."""
    parts = [kind for part in get_args(hint) for kind in plain_kinds(part)] if get_origin(hint) in (Union, UnionType) else [hint]
    kinds = [get_origin(part) or part for part in parts]
    taken = [kind for kind in kinds if kind in (bool, int, float, str, dict, NoneType)]
    return tuple(dict.fromkeys([*taken, *([int] if float in taken else [])]))


class Validations(Callback):
    """Validates after the last step too, where the interval does not divide the budget, and again what a signal has cut short.

    Last of the callbacks, so that all others are ready when a resumed run begins with a validation.

    Args:
        again: The results of the last step are missing, so that a run that has done it validates once more.
    """

    def __init__(self, again: bool = False) -> None:
        self.again = again
        self.due = False  # a validation has begun and not ended
        self.budget = -1  # steps

    def state_dict(self) -> dict[str, Any]:
        """Whether the checkpoint was saved amid a validation."""
        return {"due": self.due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from the checkpoint."""
        self.due = state_dict["due"]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that one has begun."""
        self.due = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that it has ended, before its scores decide about checkpoints."""
        self.due = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where only the validation of the last step is missing, let Lightning begin, for which nothing would be left to do."""
        self.budget = trainer.max_steps
        self.due = self.due or (self.again and trainer.global_step == self.budget)
        if self.due and trainer.global_step == self.budget:
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate as the loop does it between two steps."""
        if not self.due:
            return
        step, loop = trainer.global_step, trainer.fit_loop.epoch_loop
        loop.max_steps = self.budget
        loop.on_load_checkpoint({"_batches_that_stepped": step - 1})  # the step that its scores are logged at
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        loop.on_load_checkpoint({"_batches_that_stepped": step})

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """In the last step, makes the last batch of the run the one that the interval asks for."""
        if trainer.global_step + 1 == trainer.max_steps:
            trainer.val_check_batch = trainer.max_steps * trainer.accumulate_grad_batches
