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


@pytest.mark.parametrize(
    "content, told",
    [
        ("a:\n  loras: x\n".encode("utf-16"), "UTF-16"),
        ("a:\n  loras: modèles\n".encode("latin-1"), "another encoding"),
        (b"a:\n  loras: x\na:\n  vae: y\n", "'a' is there twice, first in line 1"),
        (b"a:\n  loras: x\n  loras: y\n", "'loras' is there twice, first in line 2"),
        (b"a:\n  loras:\n    x: models/loras\n", "section 'a': 'loras' must be a path"),
        (b"a:\n  loras:\n    - x: models/loras\n", "section 'a': 'loras' must be a path"),
        (b"a: [\n", "not valid YAML"),
        (b"a: text\n", "the section 'a' must map"),
        (b"\x00\x01", "not valid YAML"),
        (b"? [a, b]\n: c\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name_with_what_to_do(tmp_path, content, told):
    path = tmp_path / "extra.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        load_extra_path_config(str(path))
    assert str(path) in str(refusal.value) and told in str(refusal.value)


def test_a_byte_order_mark_is_no_part_of_the_first_section(load, tmp_path):
    assert load("\ufeffa111:\n  loras: x\n") == [("loras", f"{tmp_path}/conf/x", False)]
