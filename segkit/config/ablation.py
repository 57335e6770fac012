"""Options of ablations and their reports."""

from dataclasses import dataclass, field
from typing import Any, Literal

from segkit.config.choices import Split
from segkit.config.rules import within
from segkit.config.training import TrainConfig


@dataclass(kw_only=True)
class AblateConfig(TrainConfig):
    """An ablation: arms that differ in one option or a few, every arm with the same seeds.

    Args:
        axes: options and the values that each takes, as `upsample: [transpose, bilinear]`; arms are all combinations. On the command
            line several words after an option say the same: --upsample transpose bilinear
        exclude: combinations to leave out, each as `{upsample: bilinear, decoder: fcn8s}`
        seeds: training runs per arm, with the seeds seed, seed + 1, ...; 6 is the least with which a sign-flip test can reach p < .05
        baseline: arm that the others are compared with; default: the first
        margin: differences of mIoU below it count as none, such as 0.01; declared before the results are known, it allows "equivalent"
        match: what is made equal within 2 percent by the width of the operators: nothing, their parameters, or their multiply-adds
        aa: compare the baseline with itself under other seeds too, which shows the noise
        split: images that are scored; default: test, or val where there is no test split
        executor: where runs are executed: processes of this machine, a SLURM cluster through submitit, or a Ray cluster
        slots: runs at a time; default: local: one per graphics card, without one a run per two cores; else no limit of ours
        cluster: what submitit or Ray should give a run, as cluster.NAME: parameters of submitit's executor (cluster.cluster local: without
            SLURM), options of a Ray task (cluster.address: of the head node)
        retry_failed: run again what has failed
        dry_run: print arms, runs, time and disk, and do nothing
        export_wandb_sweep: write the same as a W&B sweep to this folder, and do nothing else
    """

    axes: dict[str, list[Any]] = field(default_factory=dict)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    seeds: int = 6
    baseline: str | None = None
    margin: float | None = None
    match: Literal["native", "params", "macs"] = "native"
    aa: bool = False
    split: Split | None = None
    executor: Literal["local", "slurm", "ray"] = "local"
    slots: int | None = None
    cluster: dict[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    dry_run: bool = False
    export_wandb_sweep: str | None = None

    def _decide(self) -> None:
        """Leaves it to the arms, which may have other decoders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("", self, 1, 1000, "seeds")
        within("", self, 1, None, "slots")
        within("", self, 0, 1, "margin")


@dataclass(kw_only=True)
class ReportConfig:
    """The report of an ablation.

    Args:
        images: draw the images on which arms differ most, for which runs predict them again; needs the data set
    """

    images: bool = True
