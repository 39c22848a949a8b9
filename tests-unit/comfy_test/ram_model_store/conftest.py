"""A folder in memory for each test."""

import pathlib
import shutil
import tempfile

import pytest

from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, SHARED_MEMORY, StoreFolder, file_system_of


@pytest.fixture
def memory_path():
    """A folder on a memory file system, of this test's own."""
    shared = pathlib.Path(SHARED_MEMORY)
    if not shared.is_dir() or file_system_of(shared.stat().st_dev) not in MEMORY_FILE_SYSTEMS:
        pytest.skip("there is no memory file system")
    path = pathlib.Path(tempfile.mkdtemp(prefix="keepwarm-test-", dir=shared))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(memory_path):
    """A folder for a store; it is not made yet."""
    return StoreFolder(str(memory_path / "store"))
