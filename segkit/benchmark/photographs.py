"""A folder data set of made-up photographs whose files are as large as real ones."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segkit.data.scenes import CLASSES, Scenes

HEIGHT, WIDTH = 360, 480
# of the JPEG; standard deviation of the noise; side of a scene before it is enlarged: some 50 kB, and 5 kB a mask, as CamVid has
QUALITY, GRAIN, SCENE = 92, 6.0, 240


def write_photographs(root: Path, count: int, seed: int = 0, val: int = 1) -> None:
    """Writes `count` training pairs and `val` to validate on: JPEG images with grain, PNG masks as Pillow writes them by default."""
    lines = [f"{k} {name} #{r:02x}{g:02x}{b:02x}\n" for k, (name, (r, g, b)) in enumerate(zip(CLASSES.names, CLASSES.colors, strict=True))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("".join(lines))
    for split, number in (("train", count), ("val", val)):
        scenes, numbers = Scenes(split, number, SCENE, seed), np.random.default_rng(seed)
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            image, mask = scenes.read(index)
            image = cv2.resize(image, (WIDTH, WIDTH), interpolation=cv2.INTER_CUBIC)[:HEIGHT]
            mask = cv2.resize(mask, (WIDTH, WIDTH), interpolation=cv2.INTER_NEAREST_EXACT)[:HEIGHT]
            grain = cv2.GaussianBlur(numbers.normal(0, GRAIN, image.shape), (0, 0), 0.7)
            pixels = (image + grain).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"images/{split}/{index:05d}.jpg", quality=QUALITY)
            Image.fromarray(mask).save(root / f"masks/{split}/{index:05d}.png")
