"""OpenVINO's package reports every import of itself to an analytics service; imported by a session it does not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WATCH = """
import json, os, sys

seen = []

def watch(event, details):
    writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith("socket.") or event in ("os.fork", "os.mkdir", "os.posix_spawn", "subprocess.Popen"):
        seen.append(f"{event} {details}"[:200])
        raise PermissionError(f"not in this test: {event}")

sys.dont_write_bytecode = True
sys.addaudithook(watch)
"""

OPEN = """
from gransam_sdk.bundle import open_bundle
from gransam_sdk.runtime.backends import session_maker
import numpy as np

bundle = open_bundle("nano-voc20")
head = session_maker(bundle, backend="openvino", device="auto", threads=1)("head")
assert head.provider == "OpenVINO CPU f32"
assert head.run({"features": np.zeros((2, bundle.feature_width), dtype=np.float32)})["logits"].shape[0] == 2
"""

REPORT = """
print(json.dumps({"seen": seen, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""

BANNED = {"openvino_telemetry", "torch", "torchvision", "cv2", "scipy", "pandas", "onnx", "onnxruntime"}


def watched(code: str, home: Path) -> dict[str, list[str]]:
    """What a fresh process did to reach beyond itself; all of it was refused."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # CI jobs are not reported
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code + REPORT],
        env={**environment, "HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_session_writes_nothing_sends_nothing_and_starts_nothing(tmp_path: Path) -> None:
    found = watched(OPEN, tmp_path)
    assert found["seen"] == []
    assert not BANNED & set(found["modules"])
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("openvino_telemetry") is None, reason="OpenVINO came without telemetry")
def test_the_watch_can_fail(tmp_path: Path) -> None:
    found = watched("import openvino", tmp_path)
    assert found["seen"] and "openvino_telemetry" in found["modules"]


@pytest.mark.parametrize("module", ["backends", "openvino_session"])
def test_modules_import_no_engine(module: str, tmp_path: Path) -> None:
    found = watched(f"import gransam_sdk.runtime.{module}", tmp_path)
    assert not {"openvino", "onnxruntime"} & set(found["modules"])
