"""Exports that would lose the faults."""

import torch

from hwfault.errors import GraphError


def refuse_export() -> None:
    """Raises GraphError inside an ONNX or torch export: a traced graph would lose the faults."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        raise GraphError(
            "the model has faults attached while it is exported; leave the `with inject(...)` block (or call .remove() "
            "on it, or take the injecting layer out), then put them into the graph with "
            "hwfault.graph.export.of_network.export(model, example, plan=plan)"
        )
