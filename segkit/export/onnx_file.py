"""ONNX: one file for onnxruntime and every other engine that reads the format."""

from pathlib import Path

from torch import Tensor
from torch.export import ExportedProgram

from segkit.errors import SegkitError
from segkit.export.card import as_text, card
from segkit.export.graph import cannot_export, quiet
from segkit.task import SegmentationTask

LARGEST = 2**31 - 2**20  # bytes of weights: a protobuf message ends at 2 GB
INSTALL = 'pip install "segkit[export]"'


def write_onnx(task: SegmentationTask, program: ExportedProgram, path: Path, normalize: bool, opset: int = 20) -> None:
    """Writes a captured network: input `image` [batch, C, height, width], output `logits` [batch, K, height, width].

    The file's metadata are the card (`segkit.export.card`), each value as JSON.

    Args:
        task: What was captured.
        program: By `segkit.export.graph.capture`.
        path: File to write, `.onnx`.
        normalize: Whether it was captured with its normalisation.
        opset: Version of the operators.

    Raises:
        SegkitError: Packages are missing, the network is larger than the format's 2 GB, or has an operation that ONNX has not.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401  torch's exporter says less clearly that it is missing
        import torch.onnx
    except ImportError as error:
        raise SegkitError(f"--format onnx needs the package {error.name}, which is not installed: {INSTALL}") from None
    size = sum(value.nbytes for value in program.state_dict.values() if isinstance(value, Tensor))
    if size > LARGEST:
        raise SegkitError(f"--format onnx: the weights have {size / 2**30:.1f} GiB, an ONNX file ends at 2; choose --format torch_export")
    try:
        with quiet():
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=opset, input_names=["image"], output_names=["logits"], verbose=False
            )
    except Exception as error:  # an exporter fails in any way that Python knows
        raise cannot_export(task, error, "to ONNX") from error
    assert exported is not None
    if (made := exported.model.opset_imports[""]) != opset:
        raise SegkitError(f"--opset {opset}: torch writes this network as {made} only")
    graph = exported.model.graph
    given, logits = graph.inputs[0], graph.outputs[0]
    given.shape = onnx_ir.Shape(["batch", task.hparams["in_channels"], "height", "width"])
    logits.shape = onnx_ir.Shape(["batch", len(task.class_names), "height", "width"])
    exported.model.producer_name, exported.model.producer_version = "segkit", card(task, normalize)["segkit_version"]
    exported.model.metadata_props.update(as_text(card(task, normalize)))
    for node in graph.all_nodes():
        node.metadata_props.clear()  # where in torch's graph it came from
    exported.save(path, external_data=False)
