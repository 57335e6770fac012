import numpy as np
import pytest

from segkit.config import DataConfig
from segkit.data.check import check_sources
from segkit.data.classes import median_frequency_weights
from segkit.data.module import SegmentationDataModule
from segkit.data.open import open_sources


@pytest.mark.parametrize(("name", "lengths", "classes"), [("camvid", (367, 101, 233), 11), ("nuclei", (465, 66, 133), 2)])
def test_real_data_opens_as_documented(shared, name, lengths, classes):
    sources = open_sources(DataConfig(kind="folder", root=str(shared / "data" / name)))
    assert tuple(len(sources[s]) for s in ("train", "val", "test")) == lengths
    image, mask = sources["train"].read(0)
    assert len(sources["train"].classes) == classes
    assert image.shape == (*mask.shape, 3)
    assert set(np.unique(mask)) <= {*range(classes), 255}
    assert sources["train"].size(0) == mask.shape


def test_camvid_validation_is_clean_and_poles_weigh_more_than_road(shared):
    sources = open_sources(DataConfig(kind="folder", root=str(shared / "data/camvid")))
    found = check_sources({"val": sources["val"]})["val"]
    assert (found.sizes == (360, 480)).all()
    weights = dict(zip(sources["val"].classes.names, median_frequency_weights(found.counts), strict=True))
    assert weights["pole"] > 1 > weights["road"]


def test_nuclei_of_many_sizes_share_batches_by_size(shared):
    data = SegmentationDataModule(DataConfig(kind="folder", root=str(shared / "data/nuclei"), eval_batch_size=4, check=False))
    batches = [batch["image"].shape[0] for batch in data.eval_dataloader("val")]
    assert sum(batches) == 66
    assert len(batches) < 66
