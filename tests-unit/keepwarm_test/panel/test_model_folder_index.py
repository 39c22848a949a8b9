"""The index of model files: each file once, named as loader nodes name it."""

from types import SimpleNamespace

import pytest

from custom_nodes.keepwarm.panel.model_files import ModelFiles


class Folders:
    """Model folders as ``folder_paths`` has them, and how often they were read."""

    def __init__(self, root):
        self.root, self.reads = root, 0
        self.folder_names_and_paths = dict.fromkeys(("checkpoints", "vae", "unet_gguf", "diffusion_models", "configs"))
        self.names = {
            "checkpoints": ["a.safetensors", "gone.safetensors"],
            "vae": [],
            "unet_gguf": ["big/u.gguf"],
            "diffusion_models": ["big/u.gguf"],
            "configs": ["v1.yaml"],
        }

    def get_filename_list(self, folder):
        self.reads += 1
        return self.names[folder]

    def get_full_path(self, folder, name):
        path = self.root / name
        return str(path) if path.exists() else None


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "a.safetensors").write_bytes(bytes(5))
    (tmp_path / "big" / "u.gguf").write_bytes(bytes(9))
    return Folders(tmp_path)


def test_each_file_is_listed_once_and_known_under_every_name(folders, tmp_path):
    files = ModelFiles(folders)
    files.refresh(0)
    assert [(file.folder, file.name, file.size_bytes) for file in files.all()] == [
        ("checkpoints", "a.safetensors", 5),
        ("unet_gguf", "big/u.gguf", 9),
    ]
    both = (("unet_gguf", "big/u.gguf"), ("diffusion_models", "big/u.gguf"))
    assert files.named([str(tmp_path / "big" / "u.gguf"), "/elsewhere"]) == both
    row = files.find("file:checkpoints/a.safetensors").row()
    assert (row.tier, row.disk_bytes, row.in_memory, list(row.actions)) == ("disk", 5, False, ["preload"])
    assert files.find("file:unet_gguf/big/u.gguf").row().actions == () and files.find("file:vae/none") is None


def test_folders_are_read_again_only_when_that_is_long_ago(folders):
    clock = SimpleNamespace(now_s=0.0)
    files = ModelFiles(folders, lambda: clock.now_s)
    files.refresh(10)
    reads = folders.reads
    clock.now_s = 9
    files.refresh(10)
    assert folders.reads == reads
    clock.now_s, folders.names["checkpoints"] = 11, []
    files.refresh(10)
    assert [file.name for file in files.all()] == ["big/u.gguf"]
