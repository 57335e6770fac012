import imagehash
import numpy as np
import pytest
from PIL import Image

from segkit.doctor.examine import _reduced, _sample
from segkit.doctor.hashing import near_pairs, perceptual_hashes


@pytest.mark.parametrize("seed", range(20))
def test_the_hash_is_that_of_imagehash(seed):
    rng = np.random.default_rng(seed)
    grey = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    bits = imagehash.phash(grey).hash.ravel()
    assert perceptual_hashes(np.asarray(grey)[None])[0] == sum(int(bit) << (63 - place) for place, bit in enumerate(bits))


def test_scaling_and_recompression_change_few_bits(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((480, 360), Image.Resampling.BICUBIC)
    image.resize((300, 225), Image.Resampling.LANCZOS).save(tmp_path / "small.jpg", quality=50)
    with Image.open(tmp_path / "small.jpg") as small:
        pictures = [np.asarray(image), np.asarray(small), np.ascontiguousarray(np.asarray(image)[::-1])]
    first, second, other = perceptual_hashes(np.stack([_reduced(_sample(picture)) for picture in pictures])).tolist()
    assert (first ^ second).bit_count() <= 2
    assert (first ^ other).bit_count() > 16


def test_many_pictures_have_the_hashes_of_each(monkeypatch):
    from segkit.doctor import hashing

    grey = np.random.default_rng(0).integers(0, 256, (23, 32, 32), np.uint8)
    each = [int(perceptual_hashes(one[None])[0]) for one in grey]
    monkeypatch.setattr(hashing, "TOGETHER", 7)
    assert perceptual_hashes(grey).tolist() == each
    assert len(perceptual_hashes(grey[:0])) == 0


@pytest.mark.parametrize("length", [0, 1, 2, 57, 3000])
def test_near_pairs_are_those_of_a_plain_loop(length):
    rng = np.random.default_rng(length)
    hashes = rng.integers(0, 2**64, length, np.uint64)
    for i in range(0, length - 1, 5):  # five bits of its neighbour flipped, or fewer
        hashes[i + 1] = hashes[i] ^ np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, 5, np.uint64))
    pairs, bits = near_pairs(hashes, 4)
    numbers = [int(h) for h in hashes[:300]]
    expected = {
        (i, j): (a ^ b).bit_count() for i, a in enumerate(numbers) for j, b in enumerate(numbers) if i < j and (a ^ b).bit_count() <= 4
    }
    assert {(i, j): n for (i, j), n in zip(pairs.tolist(), bits.tolist(), strict=True) if j < 300} == expected
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_near_pairs_cross_the_borders_of_blocks(monkeypatch):
    from segkit.doctor import hashing

    hashes = np.random.default_rng(1).integers(0, 2**16, 200, np.uint64)  # many are near
    whole, bits = near_pairs(hashes, 3)
    assert len(whole) > 50
    monkeypatch.setattr(hashing, "BLOCK", 500)
    pairs, others = near_pairs(hashes, 3)
    assert pairs.tolist() == whole.tolist()
    assert others.tolist() == bits.tolist()
