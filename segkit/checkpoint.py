"""Checkpoint files: written so that a crash leaves the old file or the new one, read so that no file can run code."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from segkit.errors import RunFailed, SegkitError
from segkit.runs import previous
from segkit.unpickle import load_plain


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write `checkpoint` to `path`, whole or not at all, even when the power fails; of `last.ckpt` the one before is kept beside it.

    The temporary file lies in the target's own folder: only within one file system is a replacement atomic. Its name is fixed, so that
    a killed run leaves at most one behind, which the next save overwrites.

    Raises:
        RunFailed: The file cannot be written, as on a full disk; the checkpoints that were there are as they were.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if path.name == "last.ckpt" and path.exists():
            _keep(path)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        temporary.unlink(missing_ok=True)
        reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).splitlines()[0]
        raise RunFailed(
            f"checkpoint {str(path)!r} could not be written ({reason}); the earlier ones are as they were: make room, then --resume the run"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)


def _keep(path: Path) -> None:
    """Gives the file its name as the one before, too, so that a complete file has the name `path` at any moment."""
    previous(path).unlink(missing_ok=True)
    try:
        os.link(path, previous(path))
    except OSError:  # a file system without hard links
        os.replace(path, previous(path))


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; nothing in the file is executed.

    Raises:
        SegkitError: `path` is a URL or missing, or what it holds is damaged or is no checkpoint.
    """
    if "://" in str(path):
        raise SegkitError(f"checkpoint {str(path)!r} is a URL; download it and give the file")
    if Path(path).suffix in (".onnx", ".pt2", ".safetensors"):
        raise SegkitError(f"{str(path)!r} is an exported network or bare weights, no checkpoint; give the run folder or its .ckpt file")
    try:
        checkpoint = load_plain(path, map_location)
    except FileNotFoundError:
        raise SegkitError(f"checkpoint {str(path)!r} does not exist") from None
    except (OSError, ValueError) as error:
        raise SegkitError(f"checkpoint {str(path)!r} is damaged or not a segkit checkpoint ({error})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise SegkitError(f"{str(path)!r} holds no segkit checkpoint: there is no 'state_dict' in it")
    return checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """`save_checkpoint` and `load_checkpoint` as the plugin through which Lightning's Trainer reads and writes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write atomically; called on rank 0 only."""
        assert storage_options is None, "a local file has no storage options"
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read with `weights_only=True`, whatever the caller says."""
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)
