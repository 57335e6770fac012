"""Every option of segkit: its name, type, default and one line of help.

Standard library only, so that `--help` and every typing error answer at once. Unprefixed fields are the experiment, `data.` the
data, `trainer.` Lightning's Trainer, `wandb.` the tracking. A comment above a field is not its help: the docstrings are.
"""

from segkit.config.ablation import AblateConfig, ReportConfig
from segkit.config.benchmark import BenchmarkConfig
from segkit.config.choices import (
    IGNORE_INDEX,
    DataKind,
    Decoder,
    Flip,
    Loss,
    Masks,
    Norm,
    Optimizer,
    Peer,
    Precision,
    Schedule,
    Split,
    Upsample,
    UpsampleInit,
)
from segkit.config.data import CheckConfig, DataConfig
from segkit.config.figures import FeaturesFigureConfig, OperatorFigureConfig, OverlapFigureConfig
from segkit.config.inference import EvalConfig, ExportConfig, PredictConfig
from segkit.config.rules import from_dict
from segkit.config.training import TrainConfig, TrainerConfig, WandbConfig

__all__ = [
    "IGNORE_INDEX",
    "AblateConfig",
    "BenchmarkConfig",
    "CheckConfig",
    "DataConfig",
    "DataKind",
    "Decoder",
    "EvalConfig",
    "ExportConfig",
    "FeaturesFigureConfig",
    "Flip",
    "Loss",
    "Masks",
    "Norm",
    "OperatorFigureConfig",
    "Optimizer",
    "OverlapFigureConfig",
    "Peer",
    "Precision",
    "PredictConfig",
    "ReportConfig",
    "Schedule",
    "Split",
    "TrainConfig",
    "TrainerConfig",
    "Upsample",
    "UpsampleInit",
    "WandbConfig",
    "from_dict",
]
