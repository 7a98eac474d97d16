"""Operations that only move values: which value of their inputs each of their outputs is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hwfault.campaigns.sparse.builder import Value
from hwfault.campaigns.sparse.known import Known
from hwfault.errors import GraphError
from hwfault.graph.read.qonnxgraph import attribute, site_name

MOVES = ("Concat", "Transpose", "Slice", "Gather", "Pad", "Expand")
_PADS = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def moved_table(node: NodeProto, inputs: Sequence[Value], known: Known) -> NDArray[np.int64]:
    """The number of the value that each output is, counted through all inputs, -1 for zero; in the output's shape.

    Raises GraphError, which names the operation, for what is no such move.
    """
    tables = []
    before = 0
    for value in inputs:
        tables.append(before + np.arange(value.size).reshape(value.shape))
        before += value.size
    try:
        table = _move(node, tables, [known.constants.get(name) for name in node.input])
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise GraphError(f"the sparse engine cannot carry {site_name(node)!r} ({node.op_type}): {error}") from None
    if table.shape != known.shapes[node.output[0]]:
        raise GraphError(
            f"the sparse engine cannot carry {site_name(node)!r} ({node.op_type}): it gives the shape "
            f"{known.shapes[node.output[0]]}, but would be {table.shape}"
        )
    return table


def _move(node: NodeProto, tables: list[NDArray[np.int64]], constants: list[NDArray[Any] | None]) -> NDArray[np.int64]:
    first = tables[0]
    if node.op_type == "Concat":
        if len(tables) != len(node.input):
            raise ValueError("some of what it puts side by side is constant")
        return np.concatenate(tables, axis=attribute(node, "axis", 1))
    if node.op_type == "Transpose":
        return np.transpose(first, attribute(node, "perm", list(range(first.ndim))[::-1]))
    if node.op_type == "Gather":
        return np.take(first, _needed(constants, 1).astype(np.int64), axis=attribute(node, "axis", 0))
    if node.op_type == "Expand":
        return np.broadcast_to(first, np.broadcast_shapes(first.shape, tuple(_needed(constants, 1).tolist())))
    if node.op_type == "Slice":
        return _slice(first, constants)
    return _pad(node, first, constants)


def _needed(constants: list[NDArray[Any] | None], index: int) -> NDArray[Any]:
    found = constants[index]
    if found is None:
        raise ValueError(f"its operand number {index} is no constant")
    return found


def _slice(table: NDArray[np.int64], constants: list[NDArray[Any] | None]) -> NDArray[np.int64]:
    starts, ends = _needed(constants, 1).tolist(), _needed(constants, 2).tolist()
    axes = _needed(constants, 3).tolist() if len(constants) > 3 else list(range(len(starts)))
    steps = _needed(constants, 4).tolist() if len(constants) > 4 else [1] * len(starts)
    cut = [slice(None)] * table.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 0:
            raise ValueError("it goes backwards")
        cut[axis] = slice(start, end, step)
    return table[tuple(cut)]


def _pad(node: NodeProto, table: NDArray[np.int64], constants: list[NDArray[Any] | None]) -> NDArray[np.int64]:
    pads = _needed(constants, 1).tolist()
    mode = _PADS[attribute(node, "mode", b"constant").decode()]
    widths = list(zip(pads[: table.ndim], pads[table.ndim :], strict=True))
    if mode != "constant":
        return np.pad(table, widths, mode=mode)  # type: ignore[call-overload,no-any-return]
    value = constants[2] if len(constants) > 2 else None
    if value is not None and value.any():
        raise ValueError("it pads with another number than 0")
    return np.pad(table, widths, constant_values=-1)
