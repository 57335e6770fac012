"""Files, or computed scenes, to batches of images and masks. The loaders are in `segkit.data.module`, which needs Lightning."""

from segkit.data.check import check_sources
from segkit.data.classes import Classes, median_frequency_weights, read_classes
from segkit.data.open import open_sources
from segkit.data.source import Source

__all__ = ["Classes", "Source", "check_sources", "median_frequency_weights", "open_sources", "read_classes"]
