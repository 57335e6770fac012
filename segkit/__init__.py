"""segkit: semantic segmentation in which the decoder's upsampling operator is the experiment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segkit.inference.model import Model

__version__ = "0.1.0"


def load(run: Any, checkpoint: Any = "last", device: str = "auto", precision: Any = None, **options: Any) -> "Model":
    """The model of a run, with which images of any size are predicted; `segkit.inference.load` describes the arguments.

    model = segkit.load("runs/NAME/ID")
    mask = model.predict("image.jpg")  # uint8 [H, W]
    """
    from segkit.inference.model import load as load_model  # torch, only where it is needed

    return load_model(run, checkpoint, device, precision, **options)
