"""The node classes that the samples of this folder use."""

import json

import pytest
from page_samples import SAMPLES


@pytest.fixture(scope="session")
def classes():
    """The samples' node classes as ``/object_info`` has them."""
    return json.loads((SAMPLES / "object_info.json").read_text(encoding="utf-8"))
