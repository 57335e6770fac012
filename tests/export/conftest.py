"""Exports that several tests look at: each takes seconds."""

from types import SimpleNamespace

import pytest

from segkit.export import export
from segkit.export.table import small_task


@pytest.fixture(scope="session")
def unet(tmp_path_factory):
    """A U-Net as an ONNX file: the task, the file, and what the comparison found."""
    task, path = small_task("unet", "nearest"), tmp_path_factory.mktemp("unet") / "model.onnx"
    return SimpleNamespace(task=task, path=path, parity=export(task, path))
