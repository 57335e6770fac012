"""The results of an evaluation in words, and the time it took."""

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Clock(Callback):
    """The seconds that the last validation took, loading and the other callbacks included."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts."""
        self.seconds = -time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops."""
        self.seconds += time.perf_counter()


def lines(measured: Mapping[str, Any]) -> dict[str, str]:
    """The results in words, for `segkit.console.header`, from what the `summary` of each measure returns."""
    rows = {}
    if "boundary" in measured:
        found = measured["boundary"]
        rows["boundary mIoU"] = f"{_digits(found['miou'])}   BF score {_digits(found['bf'])}"
        rows["trimap mIoU"] = "   ".join(f"{r} px {_digits(value)}" for r, value in found["trimap"].items())
    if "artefacts" in measured:
        found = measured["artefacts"]
        rows["CI_op"] = "   ".join(f"{name} {_digits(value)}" for name, value in found["ci_op"].items()) or "no operator"
        rows["CI_net"] = "   ".join(f"{s} px {_digits(value)}" for s, value in found["ci_net"].items())
        rows["CI_net, null"] = "   ".join(f"{s} px {_digits(value)}" for s, value in found["null"].items())
    if "calibration" in measured:
        found = measured["calibration"]
        errors = "   ".join(f"{name} {_digits(found[key])}" for name, key in (("MCE", "mce"), ("class-wise", "classwise_ece")))
        rows["ECE"] = f"{_digits(found['ece'])}   {errors}   ({found['bins']} bins)"
        rows["Brier score"] = f"{_digits(found['brier'])}   negative log-likelihood {_digits(found['nll'])}"
    return rows


def _digits(value: float) -> str:
    return "none" if value != value else f"{value:.4f}"
