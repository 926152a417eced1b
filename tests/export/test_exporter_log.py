"""What the exporter says of torchvision, which no graph needs, is left out; all else that it says is not."""

from __future__ import annotations

import logging
from typing import NoReturn

import pytest
import torch
from torch.onnx._internal.exporter import _registration

from gransam_sdk.export.onnx_file import export_graph

NOISE = ("torchvision is not installed. Skipping %s", "torchvision::nms")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def test_only_this_line_and_only_while_a_graph_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object, **__: object) -> NoReturn:
        _registration.logger.warning(*NOISE)
        _registration.logger.warning("an operator is missing")
        raise RuntimeError("stopped here")

    monkeypatch.setattr(torch.onnx, "export", export)
    lines = Lines()
    monkeypatch.setattr(_registration.logger, "handlers", [lines])
    with pytest.raises(RuntimeError, match="stopped here"):
        export_graph(torch.nn.Identity(), {"x": torch.zeros(2, 3)}, ["y"], "g")
    assert lines.said == ["an operator is missing"]
    _registration.logger.warning(*NOISE)
    assert lines.said[1:] == ["torchvision is not installed. Skipping torchvision::nms"], "after it, as before"
