"""Networks for use elsewhere: ONNX, programs of `torch.export`, and weights from which segkit builds the network again."""

from segkit.export.fold import fold_batch_norms
from segkit.export.graph import capture
from segkit.export.onnx_file import write_onnx
from segkit.export.parity import SIZES, Parity, compare
from segkit.export.program import load_program, write_program
from segkit.export.rewrite import rewrite_operators
from segkit.export.weights import load_safetensors, write_safetensors
from segkit.export.write import export

__all__ = [
    "SIZES",
    "Parity",
    "capture",
    "compare",
    "export",
    "fold_batch_norms",
    "load_program",
    "load_safetensors",
    "rewrite_operators",
    "write_onnx",
    "write_program",
    "write_safetensors",
]
