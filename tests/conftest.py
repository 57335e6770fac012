"""What several rooms of the tests need."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and weights that lies beside the repository; the test is skipped where there is none."""
    folder = Path(os.environ.get("SEGKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no shared data here")
    return folder


@pytest.fixture
def make_folder(tmp_path):
    """Write a data set of the folder layout: made-up images and masks with labels 0..classes-1; returns its root."""

    def make(train=4, val=2, test=0, size=(40, 48), classes=3):
        rng = np.random.default_rng(7)
        (tmp_path / "classes.txt").write_text("".join(f"{k} class{k} #{k:02x}{k:02x}ff\n" for k in range(classes)))
        for split, count in (("train", train), ("val", val), ("test", test)):
            for kind in ("images", "masks") if count else ():
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"images/{split}/{split}{i}.png")
                Image.fromarray(rng.integers(0, classes, size, np.uint8)).save(tmp_path / f"masks/{split}/{split}{i}.png")
        return tmp_path

    return make
