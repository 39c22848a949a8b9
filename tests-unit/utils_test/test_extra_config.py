"""Extra model folders from YAML."""

import os
import random

import pytest

import folder_paths
from utils.extra_config import load_extra_path_config

FILES = int(os.environ.get("FUZZ_FILES", "300"))
WHOLE = """\
a111: &a
  base_path: ~/webui
  is_default: true
  checkpoints: models/sd
  loras: |
    models/lora
    models/lyco
b:
  <<: *a
  vae: [x, "y z"]
"""
SNIPPETS = (
    "!!int ", "!!float ", "!!bool ", "!!binary ", "!!timestamp ", "!!set ", "!!omap ", "!!pairs ", "!!python/object:a ", "*a", "&a ", "<<",
    "[", "]", "{", "}", ": ", "- ", "? ", "| ", "> ", "\n", "\n  ", "\t", "'", '"', "%", "@", "`", "#", "~", "yes", "null", "2024-13-45",
    '"\\0"', '"\\ud800"', "0x", "0o9", ".inf", "1e999", "--- ", "...", "\u2028", "\ufeff",
)  # fmt: skip


def damaged(chance):
    """The file above with snippets put in, lines moved and bytes changed."""
    text = WHOLE
    for _ in range(chance.randint(0, 3)):
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(SNIPPETS) * (60 if chance.random() < 0.05 else 1) + text[place + chance.choice([0, 0, 1, 5]) :]
    if chance.random() < 0.3:
        lines = text.splitlines(True)
        text = "".join(chance.sample(lines, chance.randint(0, len(lines))))
    content = bytearray(text.encode())
    if chance.random() < 0.2 and content:
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


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


def test_absolute_paths_and_lists_are_used_unchanged(load, tmp_path):
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
        (b"a:\n  loras: !!int x\n", "not valid YAML"),
        (b"a:\n  loras: !!timestamp x\n", "not valid YAML"),
        (b"[" * 600, "not valid YAML"),
        (b"a:\n  loras: yes\n", "section 'a': 'loras' must be a path"),
        (b"a:\n  loras: !!pairs [x: y]\n", "section 'a': 'loras' must be a path"),
        (b"a:\n  base_path: [x]\n  loras: y\n", "section 'a': 'base_path' must be a path"),
        (b'a:\n  loras: "x\\0y"\n', "characters that no path can have"),
        (b'a:\n  loras: "\\ud800"\n', "characters that no path can have"),
        (b"a:\n  is_default: never\n", "'is_default' must be true or false"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name_with_what_to_do(tmp_path, content, told):
    path = tmp_path / "extra.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        load_extra_path_config(str(path))
    assert str(path) in str(refusal.value) and told in str(refusal.value)


def test_folders_that_look_like_numbers_or_dates_are_taken_as_written(load, tmp_path):
    calls = load("a:\n  vae: 0123\n  loras: [2024-01-01, 1e3, 0x10]\n  is_default: 1\n")
    assert [path for _, path, _ in calls] == [f"{tmp_path}/conf/{name}" for name in ("0123", "2024-01-01", "1e3", "0x10")]
    assert all(is_default for _, _, is_default in calls)


def test_damaged_files_are_read_or_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    chance, path, refused = random.Random(6), tmp_path / "extra.yaml", 0
    for _ in range(FILES):
        path.write_bytes(damaged(chance))
        try:
            load_extra_path_config(str(path))
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        for folders, _ in folder_paths.folder_names_and_paths.values():
            assert all(os.path.isabs(folder) and b"\0" not in os.fsencode(folder) for folder in folders)
        folder_paths.folder_names_and_paths.clear()
    assert FILES // 4 < refused < FILES * 3 // 4


def test_a_byte_order_mark_does_not_belong_to_the_first_section(load, tmp_path):
    assert load("\ufeffa111:\n  loras: x\n") == [("loras", f"{tmp_path}/conf/x", False)]
