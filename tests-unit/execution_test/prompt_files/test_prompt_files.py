"""The files behind one prompt: what the keys of this process cover, and which results are kept."""

import asyncio
import os
import threading
import time

import pytest

from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.prompt_files.file_state import TICK_S
from comfy_execution.prompt_files.known_folders import FileRoots, FolderNames
from comfy_execution.prompt_files.named_files import NamedFiles
from comfy_execution.prompt_files.prompt_files import MAX_ABOVE, PromptFiles


class Plain:
    """A node class that is not asked whether something changed."""


class Asked:
    """A node class that tells itself whether its file changed."""

    @classmethod
    def IS_CHANGED(cls):
        return 1


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


PROMPT = {
    "load": node("Plain", name="m.safetensors", strength=1),
    "picture": node("Asked", name="p.png"),
    "other": node("Plain", text="a text"),
    "both": node("Plain", a=["load", 0], b=["picture", 0], c=["other", 0]),
    "end": node("Plain", x=["both", 0]),
}


@pytest.fixture
def roots(tmp_path):
    for folder, name in (("models", "m.safetensors"), ("input", "p.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"1")
    time.sleep(TICK_S)
    return FileRoots({"checkpoints": (str(tmp_path / "models"),)}, {"input": str(tmp_path / "input")})


def files_of(roots, prompt=PROMPT, **options):
    files = PromptFiles(lambda: roots, FolderNames(), DynamicPrompt(prompt), {"Plain": Plain, "Asked": Asked}.__getitem__, **options)
    asyncio.run(files.survey(prompt))
    return files


def marks(roots, prompt=PROMPT):
    files = files_of(roots, prompt)
    return {node_id: files.mark(node_id) for node_id in prompt}


def test_marks_cover_the_files_of_a_node_and_of_those_above(roots, tmp_path):
    first = marks(roots)
    assert first["other"] == first["picture"] == "" and first["load"] and first["both"] == first["end"] != first["load"]
    assert marks(roots) == first
    (tmp_path / "models" / "m.safetensors").write_bytes(b"2")
    second = marks(roots)
    assert all((first[node_id] == second[node_id]) is (node_id in ("other", "picture")) for node_id in PROMPT)


def test_a_class_with_is_changed_tracks_its_pictures_itself_but_not_models(roots, tmp_path):
    first = marks(roots)
    (tmp_path / "input" / "p.png").write_bytes(b"2")
    assert marks(roots) == first
    assert marks(roots, {"a": node("Asked", name="m.safetensors")})["a"]


def test_a_prompt_that_names_no_files_has_no_marks_and_starts_no_thread(roots, monkeypatch):
    monkeypatch.setattr(threading, "Thread", None)
    files = files_of(roots, {"a": node("Plain", x=1, y=None), "b": node("Plain", x=["a", 0])})
    assert files.mark("a") == "" and files.hold("b") and files.is_known("a")


@pytest.mark.parametrize("name, changed", [("models/m.safetensors", {"load", "both", "end"}), ("input/p.png", {"picture", "both", "end"})])
def test_nothing_made_from_a_changed_file_is_kept_and_this_is_logged_once(roots, tmp_path, caplog, name, changed):
    files = files_of(roots)
    assert all(files.hold(node_id) for node_id in PROMPT)
    (tmp_path / name).write_bytes(b"2")
    assert {node_id for node_id in PROMPT if not files.hold(node_id)} == changed
    assert [record.args[0] for record in caplog.records] == [str(tmp_path / name)]
    assert all(files.is_known(node_id) is (node_id not in changed) for node_id in PROMPT)


def test_a_file_that_is_put_back_does_not_count_as_unchanged(roots, tmp_path):
    files = files_of(roots)
    path = tmp_path / "models" / "m.safetensors"
    os.rename(path, tmp_path / "aside")
    assert not files.hold("load")
    os.rename(tmp_path / "aside", path)
    assert not files.hold("load") and not files.hold("end")


@pytest.mark.parametrize("text", ["late.safetensors", "sub/late.safetensors", "late.png [input]", "of embedding:late, and m"])
def test_nothing_made_under_a_name_without_a_file_is_kept_once_the_file_is_there(roots, tmp_path, caplog, text):
    roots.models["embeddings"] = (str(tmp_path / "embeddings"),)
    prompt = {"a": node("Plain", name=text), "b": node("Plain", x=["a", 0]), "c": node("Plain", name="euler"), "d": node("Plain", x=1)}
    files = files_of(roots, prompt)
    assert all(files.hold(node_id) for node_id in prompt) and files.mark("a") == ""
    for path in ("models/late.safetensors", "models/sub/late.safetensors", "input/late.png", "embeddings/late.pt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"1")
    assert not files.hold("b"), "it may have read by a name that it got from above"
    assert [node_id for node_id in prompt if not files.hold(node_id)] == ["a", "b"]
    assert len(caplog.records) == 1 and text in caplog.text


def test_names_that_are_looked_for_again_in_vain_count_as_changed(roots, monkeypatch):
    files = files_of(roots, {"a": node("Plain", name="late.safetensors")}, timeout_s=0.05)
    release = threading.Event()
    monkeypatch.setattr(NamedFiles, "absent", lambda self, value: release.wait(20))
    assert not files.hold("a")
    release.set()


def test_the_survey_waits_until_another_change_would_show(roots, tmp_path):
    (tmp_path / "models" / "m.safetensors").write_bytes(b"2")
    files = files_of(roots)
    (file,) = files.own("load")
    assert time.time() - file.state[4] / 1e9 >= TICK_S


def test_a_file_system_that_does_not_answer_costs_the_time_allowed_and_nothing_is_kept(roots, monkeypatch, caplog):
    release = threading.Event()
    monkeypatch.setattr(PromptFiles, "_find", lambda self, values: release.wait(20))
    began_s = time.monotonic()
    files, other = files_of(roots, timeout_s=0.05), files_of(roots, timeout_s=0.05)
    release.set()
    assert time.monotonic() - began_s < 5
    assert files.mark("load") != other.mark("load") and files.mark("end") != files.mark("load")
    assert not files.is_known("load") and not files.hold("load") and not files.hold("both") and "does a disk" in caplog.text


def test_circles_and_long_chains_of_files_end(roots, tmp_path):
    circle = {"a": node("Plain", x=["b", 0], name="m.safetensors"), "b": node("Plain", x=["a", 0])}
    assert set(marks(roots, circle)) == {"a", "b"}
    chain = {"0": node("Plain", name="0")}
    for number in range(1, 3000):
        chain[str(number)] = node("Plain", name=str(number), x=[str(number - 1), 0])
    for number in range(3000):
        (tmp_path / "models" / str(number)).touch()
    files = files_of(roots, chain)
    assert len({files.mark(node_id) for node_id in chain}) == 3000
    assert max(len(files._reach(node_id).files) for node_id in chain) == MAX_ABOVE
    (tmp_path / "models" / "0").write_bytes(b"2")
    assert not any(files.hold(node_id) for node_id in list(chain)[:100])
