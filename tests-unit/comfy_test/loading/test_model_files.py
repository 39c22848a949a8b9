"""The files of one load are opened when they are read, and closed once."""

import pytest
import safetensors.torch
import torch
from residency_models import management

from comfy.families.model_errors import ModelFileError
from comfy.loading.model_files import ModelFiles


@pytest.fixture
def paths(tmp_path):
    made = []
    for name in ("a", "b"):
        made.append(str(tmp_path / f"{name}.safetensors"))
        safetensors.torch.save_file({name: torch.ones(4)}, made[-1])
    return made


def test_files_are_opened_once_and_closed_at_the_end(paths):
    with management(), ModelFiles(*paths) as files:
        first, second = files.sources()
        assert files.sources()[0] is first is files.source() and list(second.shapes()) == ["b"]
        assert files.read_bytes() == 0
        assert torch.equal(second.take(["b"], None)["b"], torch.ones(4)) and files.read_bytes() == 16
    with pytest.raises(ModelFileError, match="cannot be read"):
        first.take(["a"], None)


def test_a_load_that_reads_nothing_opens_nothing(tmp_path):
    with ModelFiles(str(tmp_path / "missing.safetensors")) as files:
        assert files.read_bytes() == 0
    with management(), ModelFiles(str(tmp_path / "missing.safetensors")) as files, pytest.raises(FileNotFoundError):
        files.sources()


def test_what_was_read_of_a_pickled_file_is_not_known(tmp_path):
    path = str(tmp_path / "a.pt")
    torch.save({"a": torch.ones(4)}, path)
    with management(), ModelFiles(path) as files:
        files.sources()
        assert files.read_bytes() is None
