"""A small ONNX graph made by hand, for what doesn't depend on where a graph comes from."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def blurring_graph(path: Path, size: int, batch: int | str = "N") -> Path:
    """Write a graph that takes pictures (batch, 3, size, size) and gives the means of 3x3 pixels."""
    shape = [batch, 3, size, size]
    blur = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in "xy"]
    graph = helper.make_graph([blur], "blur", *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
