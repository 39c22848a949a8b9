"""The samples of this folder: saved workflows with what the official page makes of them, and the node classes that they use."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
SAMPLES = pathlib.Path(__file__).parent / "samples"


@pytest.fixture(scope="session")
def classes():
    """The samples' node classes as ``/object_info`` has them."""
    return json.loads((SAMPLES / "object_info.json").read_text(encoding="utf-8"))
