"""Which files are warm, under which names, and with which contents."""

import threading

from app.running.warm_models import FileContents, ModelPlaces, WarmModels
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.weights_key import FileIdentity, weights_key


class Model:
    """The least that a patcher is."""

    def __init__(self, parent=None):
        self.model, self.parent = parent.model if parent else object(), parent

    def clone(self):
        return Model(self)


def make(tmp_path, contents=None):
    """A cache, and what is said of it; two kinds of folders."""
    for kind in ("checkpoints", "loras"):
        (tmp_path / kind).mkdir()

    def names(kind):
        return sorted(str(path.relative_to(tmp_path / kind)) for path in (tmp_path / kind).rglob("*") if path.is_file())

    from comfy.ram_model_cache.values import OwnerHooks

    cache = RamModelCache(CacheSettings(10_000, headroom_bytes=0), OwnerHooks(measure=lambda patcher: {id(patcher.model): 100}))
    places = ModelPlaces(lambda: ("checkpoints", "loras"), names, lambda kind, name: str(tmp_path / kind / name))
    return cache, WarmModels(lambda: cache, places, contents or FileContents(None))


def load(cache, component, path):
    key = weights_key(component, [path])
    cache.fetch({key: 100}, lambda keys: {key: Model()})


def test_parts_of_a_file_are_one_and_a_file_of_two_names_is_there_twice(tmp_path):
    cache, warm = make(tmp_path)
    path = tmp_path / "checkpoints" / "a.safetensors"
    path.write_bytes(b"12345")
    (tmp_path / "loras" / "same.safetensors").symlink_to(path)
    assert warm.describe() == []
    load(cache, "model", path)
    load(cache, "vae", path)
    found = warm.describe()
    assert [(one["folder"], one["name"], one["bytes"], one["file_bytes"]) for one in found] == [
        ("checkpoints", "a.safetensors", 200, 5),
        ("loras", "same.safetensors", 200, 5),
    ]
    assert warm.cap_bytes() == 10_000
    cache.clear()
    assert warm.describe() == []


def test_the_list_of_files_gets_a_version_with_each_change(tmp_path):
    _, warm = make(tmp_path)
    (tmp_path / "loras" / "deep").mkdir()
    (tmp_path / "loras" / "deep" / "one").write_bytes(b"123")
    warm.describe()
    assert warm.files() == (1, [{"folder": "loras", "name": "deep/one", "bytes": 3}])
    warm.describe()
    assert warm.files()[0] == 1
    (tmp_path / "loras" / "two").write_bytes(b"1")
    warm.describe()
    version, files = warm.files()
    assert version == 2 and [one["name"] for one in files] == ["deep/one", "two"]


def test_contents_are_taken_in_the_background_once_per_state(tmp_path):
    taken, done = [], threading.Event()

    def fingerprint(path, memo):
        taken.append(path)
        done.set()
        return f"contents {len(taken)}"

    contents = FileContents(None, fingerprint)
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = FileIdentity.of(path)
    assert contents.of(before) is None and done.wait(5)
    until(lambda: contents.of(before) == "contents 1")
    path.write_bytes(b"22")
    after = FileIdentity.of(path)
    assert contents.of(after) is None
    until(lambda: contents.of(after) == "contents 2")
    assert len(taken) == 2


def test_a_file_that_changes_meanwhile_has_no_contents(tmp_path):
    path, done = tmp_path / "a", threading.Event()
    path.write_bytes(b"1")

    def fingerprint(path, memo):
        with open(path, "ab") as file:
            file.write(b"more")
        done.set()
        return "wrong"

    contents = FileContents(None, fingerprint)
    before = FileIdentity.of(path)
    contents.of(before)
    assert done.wait(5)
    until(lambda: not contents._works)
    assert contents.of(before) is None


def until(holds):
    pause = threading.Event()
    for _ in range(500):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to hold")
