"""What exports need beyond the library, or a loud skip."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def onnx_python() -> str:
    python = os.environ.get("MTBUS_ONNX_PYTHON")
    if not python:
        pytest.skip("NOT TESTED with ONNX: MTBUS_ONNX_PYTHON names no interpreter")
    if not pathlib.Path(python).is_file():
        pytest.fail(f"MTBUS_ONNX_PYTHON={python} is not a file")
    return python
