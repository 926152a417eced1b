"""Running an ONNX graph while exporting: what a reduced precision is measured with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gransam_sdk.errors import EnvironmentFault, MissingExtraError
from gransam_sdk.shapes import AnyArray

Run = Callable[[Mapping[str, AnyArray]], dict[str, AnyArray]]
"""Inputs by name to outputs by name."""


def open_graph(data: bytes) -> Run:
    """Loads a graph on ONNX Runtime's CPU provider.

    Args:
        data: ONNX bytes; outputs beyond those of a bundle are allowed.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        EnvironmentFault: It cannot load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime is not installed", do='pip install "gransam-sdk[cpu]"') from error
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors are raised
    try:
        session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        found = str(error).splitlines()[0][:300]
        raise EnvironmentFault("graph", expected="a graph that ONNX Runtime can load", found=found) from error
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return run
