"""The gallery: one page that holds all it shows, in words that are true."""

import base64
import re
from io import BytesIO

import numpy as np
from PIL import Image

from segkit.gallery import Exhibit, describe, describe_class, gallery

NAMES, COLORS = ["sky", "road & kerb", "pole"], [(0, 0, 255), (90, 90, 90), (255, 255, 0)]
MATRIX = np.array([[60, 20, 0], [0, 10, 0], [1, 9, 0]])


def exhibit(name, shade):
    mask = np.zeros((10, 20), np.uint8)
    mask[5:], mask[0] = 1, 255
    return Exhibit(name, np.full((10, 20, 3), shade, np.uint8), mask, np.zeros_like(mask), MATRIX)


def test_classes_and_images_in_words():
    assert describe_class(MATRIX, 0, NAMES) == "IoU 74.1 %; 20 of 80 pixels missed, 100 % taken for road & kerb; 1 false, 100 % on pole"
    assert describe_class(MATRIX, 2, NAMES) == "IoU 0.0 %; 10 of 10 pixels missed, 90 % taken for road & kerb"
    assert describe_class(np.diag([4, 0]), 0, NAMES) == "IoU 100.0 %"
    # 60/81, 10/39, 0/10; 70 of 100; road has 29 wrong pixels, sky 21, pole 10
    start = "mIoU 33.2 %, accuracy 70.0 %; most wrong pixels: road & kerb, IoU 25.6 %; 29 false, 69 % on sky"
    assert describe(MATRIX, NAMES) == start
    assert describe(np.diag([4, 0]), NAMES) == "mIoU 100.0 %, accuracy 100.0 %"


def test_the_page_holds_its_pictures_and_asks_for_nothing():
    first, second = exhibit("<b>", 40), exhibit("second", 200)
    page = gallery("run & split", "mIoU 0.5", [first, second], {2: first}, NAMES, COLORS, 255)
    assert not re.search(r'(?:src|href)="(?!data:)|<script|<b>', page)
    assert page.count("<article>") == 3
    titles = re.findall("<h3>(.*?)</h3>", page)
    assert titles == ["&lt;b&gt;", "second", "pole: &lt;b&gt;"]
    assert "run &amp; split" in page
    assert "rgb(255, 255, 0)" in page
    pictures = [Image.open(BytesIO(base64.b64decode(data))) for data in re.findall('src="data:image/jpeg;base64,([^"]+)"', page)]
    assert len(pictures) == 12
    assert {picture.size for picture in pictures} == {(380, 190)}  # a small image grows by a whole factor: 20 x 10 by 19
    assert abs(np.asarray(pictures[0]).astype(int) - 40).max() < 4
    truth = np.asarray(pictures[1]).astype(int)
    assert abs(truth[30:90] - COLORS[0]).max() < 30
    assert abs(truth[105:] - COLORS[1]).max() < 30
    wrong = np.asarray(pictures[3]).astype(int)
    assert (wrong[110:, :, 0] - wrong[110:, :, 1] > 120).all()  # red where the road is taken for sky
    sizes = re.findall(r'<img [^>]*width="(\d+)" height="(\d+)" alt="([^"]+)"', page)
    assert sizes[0] == ("380", "190", "&lt;b&gt;: image")


def test_of_two_classes_the_one_that_is_found_less_is_told():
    assert "most wrong pixels: nucleus, IoU 40.0 %; 3 of 5 pixels missed, 100 % taken for ground" in describe(
        np.array([[90, 0], [3, 2]]), ["ground", "nucleus"]
    )
