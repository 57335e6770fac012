"""`torch.load` for the files of strangers: tensors and plain values come out, no code runs, and what is refused is said in a few words."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from segkit.runs import damage


def load_plain(path: str | Path, map_location: Any = "cpu") -> Any:
    """The tensors and plain values that `torch.save` has written to a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or holds code, or would take much more memory than its size tells; the message says which.
    """
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    if zipped and (fault := damage(path)):
        raise ValueError(fault)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file of another kind, several lines before the one that counts
            return torch.load(path, map_location=map_location, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in any way that Python knows
        raise ValueError(_reason(str(error)) or type(error).__name__) from error


def _reason(said: str) -> str:
    """What torch says, without its advice to switch this protection off."""
    if name := re.search(r"GLOBAL ([\w.]+)", said):
        return f"it holds more than tensors and plain values: {name[1]}, which is not run"
    if "TorchScript" in said:
        return "a TorchScript program, which is not run"
    if "weights_only" in said:
        return "no file of torch.save with tensors and plain values"
    return said.strip().partition("\n")[0]
