"""Files, or computed scenes, to batches of images and masks.

`open.open_sources` opens what a configuration names; the loaders are in `module`, which needs Lightning. What is imported here, and
`files`, `labels` and `source`, need numpy and Pillow only.
"""

from segkit.data.classes import Classes, median_frequency_weights, read_classes
from segkit.data.source import Reading, Source

__all__ = ["Classes", "Reading", "Source", "median_frequency_weights", "read_classes"]
