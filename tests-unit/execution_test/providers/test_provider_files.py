"""Nodes that read files: never a result of what a file held before, whatever happens between key and read."""

import os
import pathlib

import pytest
from executor_harness import make_node, node
from provider_kinds import Memory

import execution
import folder_paths
from comfy_execution.cache_provider import register_cache_provider
from comfy_execution.executor.caches import CacheType
from comfy_execution.shared_keys.world import make_world

MODES = [(CacheType.CLASSIC, {}), (CacheType.LRU, {"lru": 50}), (CacheType.RAM_PRESSURE, {"ram": 0.001})]


@pytest.fixture
def model(monkeypatch, tmp_path):
    """The file ``m.model`` of a folder of models, which holds "old"."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(tmp_path / "models")], set()))
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "models").mkdir()
    (tmp_path / "input").mkdir()
    path = tmp_path / "models" / "m.model"
    path.write_text("old")
    return path


def replace(path, text):
    """Give the file another content of the same size, with the times it had."""
    times = os.stat(path)
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(new, path)


def reader(path, before_reading=lambda: None, **attributes):
    """A class of nodes that read the file at *path*, whatever they are told."""

    def go(self, name):
        before_reading()
        return (pathlib.Path(path).read_text(),)

    return make_node(go, ["name"], **attributes)


def prompt_for(name, salt=0):
    return {"0": node("Read", name=name), "1": node("Pass", value=("0", 0)), "end": node("Sink", value=("1", 0))}


@pytest.mark.parametrize("cache_type, cache_args", MODES, ids=[mode.name for mode, _ in MODES])
@pytest.mark.parametrize("name", ["m.model", "absolute"])
def test_a_replaced_file_is_read_again_and_one_that_stays_is_not(bench, log, model, cache_type, cache_args, name):
    name = str(model) if name == "absolute" else name
    made = bench(cache_type=cache_type, cache_args=cache_args, Read=reader(model))
    for content in ("old", "new"):
        replace(model, content)
        made.run(prompt_for(name))
        assert log[-1] == content
        made.run(prompt_for(name))
        assert "0" not in made.executed() and "1" not in made.executed()


@pytest.mark.parametrize("cache_type, cache_args", MODES, ids=[mode.name for mode, _ in MODES])
def test_what_was_made_of_a_file_replaced_before_it_was_read_is_not_found_again(bench, log, model, cache_type, cache_args, caplog):
    changes = ["new"]

    def by_content(cls, name):
        return model.read_text()

    made = bench(
        cache_type=cache_type,
        cache_args=cache_args,
        Read=reader(model, lambda: changes and replace(model, changes.pop()), IS_CHANGED=classmethod(by_content)),
    )
    made.run(prompt_for("m.model"))
    assert log == ["new"] and made.executor.success
    replace(model, "old")
    made.run(prompt_for("m.model"))
    assert log == ["new", "old"]
    made.run(prompt_for("m.model"))
    assert "0" not in made.executed()
    assert len([record for record in caplog.records if "was changed while the prompt ran" in record.message]) == 1


def test_a_picture_whose_class_tells_its_content_is_not_made_again_when_it_is_only_written_again(bench, log, model):
    picture = pathlib.Path(folder_paths.get_input_directory()) / "p.png"
    picture.write_text("one")
    changes = []

    def by_content(cls, name):
        return picture.read_text()

    made = bench(Read=reader(picture, lambda: changes and replace(picture, changes.pop()), IS_CHANGED=classmethod(by_content)))
    made.run(prompt_for("p.png"))
    picture.write_text("one")
    made.run(prompt_for("p.png"))
    assert log == ["one"] or "0" not in made.executed()
    picture.write_text("two")
    changes.append("six")
    made.run(prompt_for("p.png"))
    replace(picture, "two")
    made.run(prompt_for("p.png"))
    assert log[-2:] == ["six", "two"]


def test_an_instance_that_remembers_what_a_file_held_is_not_used_again(bench, log, model):
    def go(self, name, salt):
        self.kept = getattr(self, "kept", None) or model.read_text()
        return (self.kept,)

    made = bench(Read=make_node(go, ["name", "salt"]))

    def run(salt, name="m.model"):
        made.run({"0": node("Read", name=name, salt=salt), "end": node("Sink", value=("0", 0))})

    run(1)
    run(2)
    run(3, name="none")
    assert log == ["old", "old", "old"]
    replace(model, "new")
    run(4)
    assert log[-1] == "new"


@pytest.mark.parametrize("is_ancestor", [False, True], ids=["its own", "above"])
def test_no_result_is_stored_under_the_key_of_what_the_file_held_before(bench, log, model, is_ancestor):
    provider = Memory()
    register_cache_provider(provider)
    changes = ["new"]

    def change():
        if changes:
            replace(model, changes.pop())

    def late(self, value):
        change()
        return (model.read_text(),)

    def server():
        made = bench(Read=reader(model, lambda: None if is_ancestor else change()), Late=make_node(late, ["value"]))
        made.executor._world = make_world(lambda: "test")
        return made

    prompt = {"0": node("Read", name="m.model"), "1": node("Late", value=("0", 0)), "end": node("Sink", value=("1", 0))}
    for _ in range(2):
        first = server()
        first.run(prompt)
        assert log[-1] == "new" and first.executor.success
        first.executor.close()
    replace(model, "old")
    second = server()
    second.run(prompt)
    assert log[-1] == "old"
    second.executor.close()
    log.clear()
    third = server()
    third.run(prompt)
    assert log == ["old"] and third.executed()[0] == "end"


def test_a_file_replaced_while_its_key_is_made_has_no_key(bench, log, model, monkeypatch):
    provider = Memory()
    register_cache_provider(provider)
    made = bench(Read=reader(model))
    made.executor._world = world = make_world(lambda: "test")
    request = world.fingerprints.request

    def late(path, state):
        replace(model, "new")
        return request(path, state)

    monkeypatch.setattr(world.fingerprints, "request", late)
    made.run(prompt_for("m.model"))
    made.executor.close()
    assert log == ["new"] and not provider.stores and not provider.lookups


def test_a_file_that_appears_between_key_and_read_is_not_shared_as_missing(bench, log, model):
    provider = Memory()
    register_cache_provider(provider)
    model.unlink()
    made = bench(Read=reader(model, lambda: model.write_text("here")))
    made.executor._world = make_world(lambda: "test")
    made.run(prompt_for("m.model"))
    made.executor.close()
    assert log == ["here"] and made.executor.success and not provider.stores
    model.unlink()
    made.run(prompt_for("m.model"))
    assert "0" in made.executed(), "nor is it kept"


def test_keys_that_cannot_be_opened_fail_no_prompt(bench, log, monkeypatch):
    register_cache_provider(Memory())
    made = bench()
    monkeypatch.setattr(execution, "make_world", lambda *arguments: 1 / 0)
    made.run({"0": node("Value", x=1), "end": node("Sink", value=("0", 0))})
    assert log == [1] and made.executor.success
