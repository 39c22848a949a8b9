"""What the tests of the RAM model cache share, here and in a ComfyUI that got this folder."""

import pytest
from ram_cache_fakes import Owner, caches


@pytest.fixture
def owner():
    """What the caches of a test ask of their owner, recorded."""
    return Owner()


@pytest.fixture
def make(owner):
    """A function that makes caches of a cap on *owner*; their books must be right at the end."""
    yield from caches(owner)
