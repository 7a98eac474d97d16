"""Exports that would lose the faults."""

import torch

from hwfault.errors import GraphError
from hwfault.torch_ops.inside_torch import is_exporting


def refuse_export() -> None:
    """Raises GraphError inside an ONNX or torch export: a traced graph would lose the faults."""
    if torch.compiler.is_compiling() and not is_exporting():
        return
    if is_exporting() or torch.onnx.is_in_onnx_export():
        raise GraphError(
            "the model has faults attached while it is exported; leave the `with inject(...)` block (or call .remove() "
            "on it, or take the injecting layer out), then put them into the graph with "
            "hwfault.export(model, example, plan=plan)"
        )
