"""Data sets to diagnose: a clean one, and what plants every kind of damage into one."""

import shutil
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance


def blobs(rng, size, low, high, cells=6):
    """A smooth random field of numbers in low..high, [H, W]."""
    field = cv2.resize(rng.random((cells, cells)), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(low + (high - low) * field, low, high)


@pytest.fixture
def clean_set(tmp_path):
    """Writes a data set of the folder layout with which nothing is wrong; returns its root."""

    def make(name="data", lengths=(24, 12, 12), size=(96, 128), classes=3):
        root, rng = tmp_path / name, np.random.default_rng(3)
        for split, length in zip(("train", "val", "test"), lengths, strict=True):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True)
            for i in range(length):
                image = np.stack([blobs(rng, size, 0, 255) for _ in range(3)], axis=2) * 0.8 + 25
                labels = blobs(rng, size, 0, classes, cells=5).astype(int).clip(0, classes - 1)
                labels[0, :classes] = range(classes)
                Image.fromarray(image.astype(np.uint8)).save(root / f"images/{split}/{i:03}.jpg", quality=92)
                Image.fromarray(labels.astype(np.uint8)).save(root / f"masks/{split}/{i:03}.png")
        (root / "classes.txt").write_text("".join(f"{k} class{k}\n" for k in range(classes)))
        return root

    return make


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises a large picture."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def load(file):
    with Image.open(file) as picture:
        return picture.copy()


@pytest.fixture
def plant():
    """Damages a data set of the folder layout, whose masks do not use the label 77; returns kind -> a part of what must be said."""

    def damage(root, crop):
        images = {split: sorted((root / "images" / split).iterdir()) for split in ("train", "val", "test")}
        queue = iter(images["train"])

        def take():
            image = next(queue)
            return image, root / "masks/train" / f"{image.stem}.png"

        said = {}

        def planted(kind, path):
            said[kind] = f"train/{path.stem}" if kind not in by_file else f"{path.relative_to(root)}"

        by_file = {"empty", "unreadable", "truncated", "damaged", "bomb", "deep_image", "frames", "color_mask", "lossy_mask"}

        image, mask = take()
        mask.unlink()
        said["no_mask"] = f"images/train/{image.name}"
        image, mask = take()
        image.unlink()
        said["no_image"] = f"masks/train/{mask.name}"
        image, mask = take()
        load(image).save(image.with_suffix(".bmp"))
        said["two_files"] = f"images/train/{image.stem}.bmp"
        image, mask = take()
        image.write_bytes(b"")
        planted("empty", image)
        image, mask = take()
        image.write_text("not a picture")
        planted("unreadable", image)
        image, mask = take()
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
        planted("truncated", image)
        image, mask = take()
        data = bytearray(mask.read_bytes())
        data[data.index(b"IDAT") + 8] ^= 16
        mask.write_bytes(data)
        planted("damaged", mask)
        image, mask = take()
        image.write_bytes(png_that_claims(12000, 10000))
        planted("bomb", image)
        image, mask = take()
        grey = np.asarray(load(image).convert("L"), np.uint16) * 257
        image.unlink()
        Image.fromarray(grey).save(image.with_suffix(".png"))
        planted("deep_image", image.with_suffix(".png"))
        image, mask = take()
        load(mask).convert("RGB").save(mask)
        planted("color_mask", mask)
        image, mask = take()
        load(mask).save(mask, "JPEG")
        planted("lossy_mask", mask)
        image, mask = take()
        first = load(mask)
        mask.unlink()
        first.save(mask.with_suffix(".gif"), save_all=True, append_images=[first.transpose(Image.Transpose.ROTATE_180)])
        planted("frames", mask.with_suffix(".gif"))
        image, mask = take()
        Image.fromarray(np.asarray(load(mask))[::2, ::2]).save(mask)
        planted("size", mask)
        image, mask = take()
        load(image).save(image, quality=92, exif=turned(6))
        planted("half_turned", mask)
        image, mask = take()
        labels = np.array(load(mask))
        labels[:5, :7] = 77
        Image.fromarray(labels).save(mask)
        planted("labels", mask)
        image, mask = take()
        for kind, file in (("images", image), ("masks", mask)):
            shutil.copy(file, root / kind / "val" / f"copied{file.suffix}")
        said["leak"] = f"train/{image.stem}, val/copied"
        image, mask = take()
        ImageEnhance.Brightness(load(image)).enhance(1.05).save(root / "images/test/similar.jpg", quality=60)
        Image.fromarray(np.roll(np.array(load(mask)), 3, axis=1)).save(root / "masks/test/similar.png")
        said["near_leak"] = f"train/{image.stem}, test/similar"
        image, mask = take()
        shutil.copy(image, image.with_stem("twice"))
        shutil.copy(mask, mask.with_stem("twice"))
        said["duplicate"] = f"train/{image.stem}, train/twice"
        image = images["val"][0]
        shutil.copy(image, root / "images/test" / f"other{image.suffix}")
        load(root / "masks/val" / f"{image.stem}.png").transpose(Image.Transpose.ROTATE_180).save(root / "masks/test/other.png")
        said["contradiction"] = f"val/{image.stem}, test/other"
        first, second = (root / "masks/val" / f"{image.stem}.png" for image in images["val"][1:3])
        shutil.copy(first, second)
        said["shared_mask"] = f"val/{first.stem}, val/{second.stem}"
        image, mask = take()
        Image.fromarray(np.full(load(mask).size[::-1], 255, np.uint8)).save(mask)
        planted("all_ignored", mask)
        image, mask = take()
        Image.fromarray(np.full((*load(mask).size[::-1], 3), 90, np.uint8)).save(image)
        planted("flat", mask)
        image = images["val"][3]
        load(image).save(image, quality=92, exif=turned(3))
        said["turned_unsure"] = f"val/{image.stem}: orientation 3"
        image = images["val"][4]
        load(image).convert("RGBA").save(image.with_suffix(".png"))
        image.unlink()
        said["alpha"] = f"val/{image.stem}"
        image = images["val"][5]
        load(image).convert("CMYK").save(image, quality=92)
        said["cmyk"] = f"val/{image.stem}"
        image = images["val"][6]
        mask = root / "masks/val" / f"{image.stem}.png"
        Image.fromarray(np.zeros(load(mask).size[::-1], np.uint8)).save(mask)
        said["constant"] = f"val/{image.stem}: "
        image, mask = take()
        for file, _method in ((image, Image.Resampling.BOX), (mask, Image.Resampling.NEAREST)):
            picture = load(file)
            picture.crop((0, 0, picture.width, crop - 9)).save(file)
        said["small"] = f"train/{image.stem}"
        with (root / "classes.txt").open("a") as file:
            count = len((root / "classes.txt").read_text().splitlines())
            file.write(f"{count} unlearnt\n{count + 1} never\n")
        mask = root / "masks/val" / f"{images['val'][7].stem}.png"
        labels = np.array(load(mask))
        labels[:3, :3] = count
        Image.fromarray(labels).save(mask)
        said["unlearnt"], said["never"] = "val: unlearnt", "never"
        return said

    return damage
