import numpy as np
import pytest

from segkit.data.classes import PixelCounts, count_pixels, median_frequency_weights, read_classes, voc_color
from segkit.errors import SegkitError


def test_reads_names_and_colours_in_any_order(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\ufeff# a comment\n\n1 traffic light #FF8000\n0 sky\n", encoding="utf-8")
    classes = read_classes(file)
    assert classes.names == ("sky", "traffic light")
    assert classes.colors == ((0, 0, 0), (255, 128, 0))
    assert len(classes) == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 sky\nroad #112233\n", "line 2"),
        ("0 sky\n1 road #12\n", "line 2"),
        ("0 sky\n0 road\n", "line 2"),
        ("0 sky\n1 sky\n", "line 2"),
        ("0 sky\n2 road\n", "no id 1"),
        ("1 sky\n", "no id 0"),
        ("", "no id 0"),
        ("255 sky\n", "255 means ignore"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path, text, reason):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(SegkitError, match=reason) as caught:
        read_classes(tmp_path / "classes.txt")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_write(tmp_path):
    with pytest.raises(SegkitError, match="id name #rrggbb"):
        read_classes(tmp_path / "classes.txt")


def test_the_default_colours_are_those_of_the_voc_kit_and_distinct():
    # VOC 2012: aeroplane, bicycle, bird, ..., tvmonitor, and the outline
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {k: voc_color(k) for k in known} == known
    assert len({voc_color(k) for k in range(256)}) == 256


def test_median_frequency_by_hand():
    # two masks: 6 of class 0 and 2 of class 1; 8 of class 0; class 2 never
    counts = count_pixels([np.array([6, 2, 0]), np.array([8, 0, 0])], 3)
    assert counts.pixels.tolist() == [14, 2, 0]
    assert counts.present.tolist() == [16, 8, 0]
    # frequencies 14/16 and 2/8, median 9/16
    assert median_frequency_weights(counts) == pytest.approx([9 / 14, 9 / 4, 1.0])


def test_no_pixel_at_all_weighs_every_class_alike():
    assert median_frequency_weights(PixelCounts(np.zeros(2, np.int64), np.zeros(2, np.int64))) == [1.0, 1.0]


def test_a_list_that_cannot_be_read_is_one_line_that_says_what_to_write(tmp_path):
    with pytest.raises(SegkitError, match=r"^\S+classes.txt is missing; write one line per class there: id name #rrggbb, such as [^\n]+$"):
        read_classes(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_bytes("0 Straße".encode("latin-1"))
    with pytest.raises(SegkitError, match=r"^cannot read \S+classes.txt: not UTF-8; write one line per class there, in UTF-8"):
        read_classes(tmp_path / "classes.txt")
