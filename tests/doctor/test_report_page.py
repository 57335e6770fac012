import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segkit.cli.check_data import main
from segkit.doctor.histogram import histogram
from segkit.errors import RunFailed


class Page(HTMLParser):
    """Tags that are opened and closed in order, and what they refer to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(file):
    with Image.open(file) as picture:
        return np.array(picture)


def test_the_page_needs_nothing_else_and_escapes_what_files_are_called(clean_set, tmp_path):
    root = clean_set(name="a & <b>")
    name = "<img src=x onerror=alert(1)>"
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (root / kind / "train" / f"000.{suffix}").rename(root / kind / "train" / f"{name}.{suffix}")
    (root / "masks/train/001.png").unlink()
    mask = root / "masks/train" / f"{name}.png"
    labels = read(mask)
    labels[:9] = 99
    Image.fromarray(labels).save(mask)
    (root / "classes.txt").write_text("0 <i>sky #ff0000\n1 b\n2 c\n")
    out = tmp_path / "out"
    with pytest.raises(RunFailed):
        main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    text = (out / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(re.match("data:|#", address) for address in page.addresses)
    assert not re.search(r"url\(|@import|http", text)
    assert name in page.text
    assert "<i>sky" in page.text
    assert "a & <b>" in page.text
    pictures = [address for address in page.addresses if address.startswith("data:image/jpeg")]
    assert len(pictures) == 3  # the pair with the unknown label, and the image without a mask
    assert "99" in page.text
    assert "Training would fail" in page.text


def test_the_json_says_where_every_share_comes_from(clean_set, tmp_path):
    root, out = clean_set(), tmp_path / "out"
    main(["--data.root", str(root), "--data.crop", "64", "--out", str(out)])
    report = json.loads((out / "report.json").read_text())
    masks = [read(file) for file in sorted(root.glob("masks/val/*.png"))]
    classes = report["splits"]["val"]["classes"]
    total = sum(mask.size for mask in masks)
    for k in range(3):
        pixels = sum(int((mask == k).sum()) for mask in masks)
        assert classes[f"class{k}"] == {"pixels": pixels, "share": pytest.approx(pixels / total), "images": 12}
    assert report["splits"]["val"]["sizes"] == [{"rows": 96, "columns": 128, "images": 12}]
    assert report["counts"] == {"error": 0, "warning": 0, "note": 0}
    assert [drift["split"] for drift in report["drift"]] == ["val", "test"]
    assert report["images_per_second"] > 0


def test_a_histogram_has_a_bar_for_every_bin_with_images():
    figure = histogram("a < b", {"train": np.array([0.0, 0.1, 3.9, 4.0]), "val": np.array([2.0])}, (0.0, 4.0), bins=4)
    assert re.findall(r"<title>(.*?)</title>", figure) == ["0 to 1: 2 images", "3 to 4: 2 images", "2 to 3: 1 images"]
    assert "a &lt; b" in figure
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', figure)]
    assert len(set(heights)) == 1  # each split by its own fullest bin
    assert Page(figure).open == []
    assert "rect" in Page(histogram("one value", {"train": np.array([5.0, 5.0])})).tags
