"""Predictions for images of any size: tiled, streamed in bands of rows, averaged over flips and sizes.

`grid`, `arrays`, `bands` and `files` need numpy and Pillow only, so that an exported network is used without torch; what needs torch is
imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segkit.inference.model import Model, load
    from segkit.inference.tiles import infer

__all__ = ["Model", "infer", "load"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("segkit.inference.tiles" if name == "infer" else "segkit.inference.model"), name)
