"""A network as a graph that takes images of any size: what every format but plain weights starts from.

Shapes: B batch, C channels, K classes, H W rows/columns.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segkit.errors import SegkitError
from segkit.export.fold import fold_batch_norms
from segkit.export.rewrite import rewrite_group_norms, rewrite_operators, rewrite_pools
from segkit.models import Network
from segkit.models.encoders import PretrainedEncoder, fix_padding
from segkit.task import SegmentationTask

# neither square, nor a multiple of any stride, nor one image: sizes that could be taken for constants
EXAMPLE = (2, 35, 41)


class Pixels(nn.Module):
    """Normalisation and a network.

    Args:
        network: `[B, C, H, W] -> [B, K, H, W]`.
        mean: What is subtracted, `[C, 1, 1]`.
        scale: What is multiplied by then, `[C, 1, 1]`.
    """

    def __init__(self, network: nn.Module, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        """uint8 or uint16 `[B, C, H, W]` to logits `[B, K, H, W]`."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.scale, Tensor)
        logits: Tensor = self.network((image.to(self.mean.dtype) - self.mean) * self.scale)
        return logits


def capture(task: SegmentationTask, normalize: bool = True) -> ExportedProgram:
    """The network of a task as a graph for any batch, height and width >= 1, batch norms folded and operators rewritten.

    Args:
        task: Its network is copied, and computes in the type of its weights.
        normalize: Take pixel values, uint8 (uint16 for images of 16 bits), and normalise them in the graph; else take normalised images.

    Raises:
        SegkitError: The network cannot be written out for any size; names the encoder, or the class of a network of one's own.
    """
    network = copy.deepcopy(task.model).cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    rewrite_operators(network)
    rewrite_group_norms(network)
    rewrite_pools(network)
    if isinstance(network, Network) and isinstance(network.encoder, PretrainedEncoder):
        fix_padding(network.encoder)
    mean, scale = task.mean, task.scale
    assert isinstance(mean, Tensor)
    assert isinstance(scale, Tensor)
    b, h, w = EXAMPLE
    image = torch.zeros(b, int(task.hparams["in_channels"]), h, w, dtype=mean.dtype)
    if normalize:
        network = Pixels(network, mean.cpu(), scale.cpu())
        image = image.to(torch.uint8 if task.hparams["white"] == 255 else torch.uint16)
    try:
        with torch.no_grad(), quiet():
            graph = _export(network, image).module(check_guards=False)
            fold_batch_norms(graph)
            program = _export(graph, image)
    except Exception as error:  # a tracer fails in any way that Python knows
        raise cannot_export(task, error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # files of this machine, which are nobody's business elsewhere
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what exporters print and warn: pages of their graph, where what they raise becomes one line."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _export(network: nn.Module, image: Tensor) -> ExportedProgram:
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    return torch.export.export(network, (image,), dynamic_shapes=(sizes,), strict=False)


def cannot_export(task: SegmentationTask, error: Exception, what: str = "for images of any size") -> SegkitError:
    """The error for a network that a tracer does not get through."""
    own = not isinstance(task.model, Network)
    name = f"the network {type(task.model).__name__}" if own else f"encoder {task.hparams['encoder']!r}"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return SegkitError(f"{name} cannot be exported {what} ({type(error).__name__}: {reason}); --format safetensors keeps its weights")
