"""Which files texts name, and which they do not."""

import os

import pytest

from comfy_execution.prompt_files.known_folders import FileRoots, FolderNames
from comfy_execution.prompt_files.named_files import MAX_FOLDER_FILES, MAX_TEXTS, OUTSIDE, NamedFiles


@pytest.fixture
def roots(tmp_path):
    for name in ("checkpoints", "loras", "input", "embeddings", "diffusers", "vae_approx"):
        (tmp_path / name).mkdir()
    kinds = ("checkpoints", "loras", "embeddings", "diffusers", "vae_approx")
    return FileRoots({kind: (str(tmp_path / kind),) for kind in kinds}, {"input": str(tmp_path / "input")})


def names(roots, value):
    return [(kind, os.path.basename(path)) for kind, path in NamedFiles(roots).behind(value)]


def test_names_are_found_wherever_they_may_mean_a_file(roots, tmp_path):
    for place in (
        "checkpoints/m.safetensors",
        "loras/m.safetensors",
        "input/p.png",
        "embeddings/neg.pt",
        "diffusers/d/x/w.bin",
        "vae_approx/taesd_encoder.pth",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"1")
    assert names(roots, "m.safetensors") == [("checkpoints", "m.safetensors"), ("loras", "m.safetensors")]
    assert names(roots, ["x", {"y": "p.png [input]"}]) == [("input", "p.png")]
    assert names(roots, "p.png") == [("input", "p.png")]
    assert names(roots, "a cat, (embedding:neg:1.2), b") == [("embeddings", "neg.pt")]
    assert names(roots, "d") == [("diffusers", "w.bin")] and names(roots, "taesd") == [("vae_approx", "taesd_encoder.pth")]
    assert names(roots, str(tmp_path / "input" / "p.png")) == [("absolute", "p.png")]
    assert names(roots, ["", "a.b.c", "x\ny.png", "p" * 600, 3, None, 1.5]) == []


def test_names_need_no_dot_and_may_be_folders(roots, tmp_path):
    for place in ("checkpoints/model", "loras/sub/style", "input/mask", "diffusers/v1.5/unet/w.bin", "input/frames/1.png", "input/Frame"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"1")
    assert names(roots, "model") == [("checkpoints", "model")] and names(roots, "sub/style") == [("loras", "style")]
    assert names(roots, "mask [input]") == names(roots, "mask") == [("input", "mask")]
    assert names(roots, "v1.5") == [("diffusers", "w.bin")] and names(roots, "frames") == [("input", "1.png")]
    assert names(roots, "/sub/../model") == names(roots, "./model") == [("checkpoints", "model")]


def test_a_name_is_found_as_soon_as_its_file_is_there(roots, tmp_path):
    known = FolderNames()

    def found():
        return [kind for kind, _ in NamedFiles(roots, known).behind("late")]

    assert found() == []
    (tmp_path / "loras" / "late").write_bytes(b"1")
    os.utime(tmp_path / "loras", (1, 1))
    assert found() == ["loras"] and known.of(str(tmp_path / "loras")) == {"late"}
    (tmp_path / "loras" / "late").unlink()
    assert found() == []


def test_what_lies_elsewhere_or_is_not_a_file_is_known_but_not_read(roots, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"1")
    os.mkfifo(tmp_path / "input" / "pipe")
    for path in (tmp_path / "elsewhere", tmp_path / "input" / "pipe", tmp_path / "input" / ".." / "elsewhere", "/dev/null"):
        assert [kind for kind, _ in NamedFiles(roots).behind(str(path))] == [OUTSIDE]
    assert names(roots, "pipe") == [] and names(roots, "/") == []


def test_odd_texts_name_nothing_and_stop_nothing(roots):
    endless = ["x"]
    endless.append(endless)
    for text in ("\ud800", "\ud800.png", "embedding:\ud800", "/\ud800", "\ud800 [input]", "tae\ud800", "a/" * 200, endless):
        assert names(roots, text) == []


def test_what_is_looked_through_is_bounded(roots, tmp_path):
    folder = tmp_path / "input" / "many"
    folder.mkdir()
    for number in range(MAX_FOLDER_FILES + 1):
        (folder / str(number)).touch()
    assert names(roots, "many") == [(OUTSIDE, "many")]
    (folder / "0").unlink()
    assert len(names(roots, "many")) == MAX_FOLDER_FILES
    assert names(roots, ["x"] * MAX_TEXTS) == [] and len(names(roots, ["x"] * (MAX_TEXTS + 1))) == 1


def test_a_folder_with_very_many_entries_is_asked_for_each_name(roots, tmp_path, monkeypatch):
    monkeypatch.setattr("comfy_execution.prompt_files.known_folders.MAX_LISTED", 2)
    for name in ("a", "b", "c"):
        (tmp_path / "loras" / name).touch()
    assert FolderNames().of(str(tmp_path / "loras")) is None
    assert names(roots, "c") == [("loras", "c")] and names(roots, "d") == []


def test_a_folder_that_does_not_answer_is_left_out_by_those_who_come_later(roots, monkeypatch):
    known, folder = FolderNames(), roots.directories["input"]
    times = iter([0.0, 5.0])
    monkeypatch.setattr("comfy_execution.prompt_files.known_folders.time.monotonic", lambda: next(times))

    def hang(path):
        assert known.of(folder) == frozenset()
        raise OSError

    monkeypatch.setattr("comfy_execution.prompt_files.known_folders.os.stat", hang)
    assert known.of(folder) == frozenset()
