"""Extra model folders from YAML."""

import os

import pytest

import folder_paths
from utils.extra_config import load_extra_path_config


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a YAML text as ``tmp_path/conf/extra.yaml`` and return the calls of ``add_model_folder_path``."""

    def run(text):
        calls = []
        monkeypatch.setattr(folder_paths, "add_model_folder_path", lambda *arguments: calls.append(arguments))
        (tmp_path / "conf").mkdir(exist_ok=True)
        (tmp_path / "conf" / "extra.yaml").write_text(text, encoding="utf-8")
        load_extra_path_config(str(tmp_path / "conf" / "extra.yaml"))
        return calls

    return run


def test_paths_start_at_the_base_path(load, tmp_path):
    calls = load(f"a111:\n  base_path: {tmp_path}/webui\n  checkpoints: models/sd\n  loras: |\n    models/lora\n    models/lyco\n")
    assert calls == [
        ("checkpoints", f"{tmp_path}/webui/models/sd", False),
        ("loras", f"{tmp_path}/webui/models/lora", False),
        ("loras", f"{tmp_path}/webui/models/lyco", False),
    ]


def test_relative_base_path_and_no_base_path_start_at_the_files_folder(load, tmp_path):
    assert load("a:\n  base_path: ../other\n  is_default: true\n  vae: v\nb:\n  vae: x\n") == [
        ("vae", f"{tmp_path}/other/v", True),
        ("vae", f"{tmp_path}/conf/x", False),
    ]


def test_absolute_paths_and_lists_are_taken_as_they_are(load, tmp_path):
    assert load("a:\n  base_path: /base\n  vae: [/abs/x, rel]\n") == [("vae", "/abs/x", False), ("vae", "/base/rel", False)]


def test_home_and_environment_variables_are_expanded(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("MODELS", "big")
    assert load("a:\n  base_path: ~/$MODELS\n  vae: v\n") == [("vae", os.path.join("/home/ada/big", "v"), False)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "a:\n", "a:\n  base_path: x\n  vae:\n"])
def test_empty_files_and_sections_add_nothing(load, text):
    assert load(text) == []


@pytest.mark.parametrize("text", ["a: [", "- x\n", "just text", "a: text\n"])
def test_other_content_is_reported_with_the_files_name(load, text):
    with pytest.raises(ValueError, match=r"extra\.yaml"):
        load(text)
