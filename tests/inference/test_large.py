"""An image of 100,000 x 20,000 pixels from file to file; the file has holes, so that its 6 GB take no room."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

STREAM = """
import sys, time, threading
import numpy as np, torch
from segkit.inference.bands import gather
from segkit.inference.files import open_picture
from segkit.inference.tiff import write_mask
from segkit.inference.tiles import score_blocks
from segkit.metrics import labels

def memory():  # MiB of this process alone, without what the system keeps of files
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) / 1024

torch.set_num_threads(1)
kernel = torch.full((3, 1, 3, 3), 1 / 9)
def network(images):  # six classes, sees one pixel to each side
    x = torch.nn.functional.conv2d(images.float(), kernel, padding=1, groups=3)
    return torch.cat([128 - x[:, :1], x - 128, 100 - x[:, 1:]], 1)

network(torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8))
before = peak = memory()
def watch():
    global peak
    while True:
        peak = max(peak, memory())
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
with open_picture(sys.argv[1], 3, 255) as picture:
    read = lambda a, b: torch.from_numpy(picture.read(a, b).transpose(2, 0, 1).copy())[None]
    blocks = score_blocks(network, read, picture.size, tile=1024, overlap=0.25, batch_size=1)
    done = ((top, left, labels(scores)[0].numpy(), None) for top, left, scores in blocks)
    write_mask(sys.argv[2], (band.labels for band in gather(done, picture.size[1])), picture.size, [(k, k, k) for k in range(6)])
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(100_000, 20_000), (20_000, 100_000)])
def test_a_hundred_thousand_by_twenty_thousand_pixels(tmp_path, size):
    height, width = size
    image = tifffile.memmap(tmp_path / "a.tif", shape=(*size, 3), dtype=np.uint8, photometric="rgb", bigtiff=True)
    marks = [(0, 0), (height // 2, width // 3), (height - 64, width - 64)]
    for top, left in marks:
        image[top : top + 64, left : left + 64, 0] = 255
    image.flush()
    del image
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path / "a.tif"), str(tmp_path / "m.tif")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    extra = float(done.stdout)
    print(f"{height} x {width}: {extra:.0f} MiB beside the network")
    tiles, kept, bands = 6 * 1024**2 * 4 * 4, 256 * width * 6 * 4, 1024 * width * 3 * 3
    assert extra < (tiles + kept + bands) / 2**20 * 1.5
    from segkit.inference.tiff import TiffRows

    mask = TiffRows.__new__(TiffRows)  # a palette, whose values are wanted as they are
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        page = file.pages[0]
        assert page.shape == size
        mask.size, mask.samples, mask.channels, mask.dtype, mask.pages, mask.path = size, 1, 1, np.dtype(np.uint8), [page], "m.tif"
        for top, left in marks:
            a, b = max(top - 10, 0), min(top + 74, height)
            rows = mask.read(a, b)[..., 0]
            expected = np.zeros((b - a, width), np.uint8)
            expected[top - a : top - a + 64, left : left + 64] = 1
            assert (rows[:, left : left + 64] == expected[:, left : left + 64]).mean() > 0.9
            outside = np.delete(rows, np.s_[max(left - 2, 0) : left + 66], axis=1)
            assert (outside == 0).all()
    (tmp_path / "a.tif").unlink()
    (tmp_path / "m.tif").unlink()
