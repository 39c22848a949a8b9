"""What is foreseen, what of it is read ahead, and what stops it. Models are stand-ins; the cache and the queue are real."""

import functools
import threading
import time

import pytest

import folder_paths
from app.read_ahead import loads
from app.read_ahead.loads import node_load
from app.read_ahead.reader import ReadAhead
from app.read_ahead.running_load import Outcome, Place, RunningLoad
from app.read_ahead.waiting_prompts import PROMPTS_AHEAD, WaitingPrompts
from comfy.interruption import interrupt_flag
from comfy.ram_model_cache.cache import CacheSettings, Loaded, OwnerHooks, RamModelCache
from comfy.weight_files.pace import current_pace
from comfy_execution.prompts.queue import PromptQueue


class Model:
    """The least that the cache takes for a model."""

    parent = None

    def clone(self):
        twin = Model()
        twin.model, twin.parent = self.model, self
        return twin


def make_model():
    model = Model()
    model.model = model
    return model


class Bench:
    """A cache, a queue, and a loader class whose loads are noted, may be held, and fail for files named ``bad``."""

    def __init__(self, cap=100):
        self.cache = RamModelCache(
            CacheSettings(cap, headroom_bytes=0), OwnerHooks(measure=lambda patcher: {id(patcher.model): 10}), start_thread=lambda run: None
        )
        self.queue, self.loaded, self.gates = PromptQueue(self), [], {}
        bench = self

        class Loader:
            READS_AHEAD = {"name": "checkpoints"}
            FUNCTION = "load"
            RETURN_TYPES = ("MODEL",)

            @classmethod
            def INPUT_TYPES(cls):  # noqa: N802
                return {"required": {"name": ("STRING", {})}}

            def load(self, name):
                return (bench.fetch(name),)

        class Use:
            FUNCTION = "use"
            OUTPUT_NODE = True
            RETURN_TYPES = ()

            @classmethod
            def INPUT_TYPES(cls):  # noqa: N802
                return {"required": {"model": ("MODEL",)}}

        self.classes = {"Loader": Loader, "Use": Use}
        self.ahead = ReadAhead(self.cache, lambda: self.queue, lambda: self.classes)

    def queue_updated(self):
        """Nobody listens."""

    def fetch(self, name):
        key = (name, loads.file_state(folder_paths.get_full_path("checkpoints", name)))

        def load(missing):
            self.loaded.append(name)
            if name in self.gates:
                while not self.gates[name].wait(0.01):
                    current_pace.get().check()
            if name.startswith("bad"):
                raise OSError(name)
            return {key: Loaded(make_model(), 1.0)}

        return self.cache.fetch({key: 10}, load)[key]

    def hold(self, name):
        self.gates[name] = threading.Event()
        return self.gates[name]

    def prompt(self, *names):
        made = {}
        for name in names:
            made[f"load {name}"] = {"class_type": "Loader", "inputs": {"name": name}}
            made[f"use {name}"] = {"class_type": "Use", "inputs": {"model": [f"load {name}", 0]}}
        return made

    def put(self, number, *names):
        prompt = self.prompt(*names)
        self.queue.put((number, f"p{number}", prompt, {}, [node_id for node_id in prompt if node_id.startswith("use")], {}))

    def begin(self, *names):
        """A prompt begins whose first node is none of the loaders."""
        nodes = [(node_id, node) for node_id, node in self.prompt(*names).items() if node_id.startswith("load")]
        self.ahead.begin([("text", {"class_type": "Use", "inputs": {}}), *nodes])

    def waits_for(self, *names):
        wait_until(lambda: {key[0] for key in self.cache.ahead.waiting()} == set(names))


def wait_until(condition, timeout_s=20.0):
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("a", "b", "c", "d", "bad", *(f"n{number}" for number in range(12))):
        (folder / name).write_text(name)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(folder)], set()))
    made = Bench()
    made.folder = folder
    yield made
    for gate in made.gates.values():
        gate.set()
    made.ahead.close()
    assert made.cache.check() == []


def test_only_classes_that_say_so_are_foreseen_and_links_are_not_guessed(bench):
    classes = bench.classes
    node = {"class_type": "Loader", "inputs": {"name": "a", "unknown": 3}}
    load = node_load(node, classes)
    assert (load.name, load.inputs, load.files) == ("a", (("name", "a"),), (("checkpoints", "a"),))
    assert load.key == node_load({"class_type": "Loader", "inputs": {"name": "a"}}, classes).key and load.states() is not None
    assert node_load({"class_type": "Loader", "inputs": {"name": ["1", 0]}}, classes) is None
    assert node_load({"class_type": "Loader", "inputs": {"name": "a", "other": ["1", 0]}}, classes) is None
    assert node_load({"class_type": "Loader", "inputs": {"name": 3}}, classes) is None
    assert node_load({"class_type": "Use", "inputs": {}}, classes) is None
    assert node_load({"class_type": "gone", "inputs": {}}, classes) is None
    assert node_load({"class_type": "Loader", "inputs": {"name": "missing"}}, classes).states() is None


def test_what_packs_derive_or_put_in_the_place_of_a_loader_is_left_alone(bench):
    loader = bench.classes["Loader"]
    node = {"class_type": "Loader", "inputs": {"name": "a"}}
    assert node_load(node, {"Loader": type("Derived", (loader,), {})}) is None
    original = loader.load

    @functools.wraps(original)
    def wrapped(self, name):
        return original(self, name)

    loader.load = wrapped
    assert node_load(node, bench.classes) is None


def test_the_cores_and_the_packs_loaders_are_foreseen():
    import nodes

    seen = {name for name, one in nodes.NODE_CLASS_MAPPINGS.items() if "READS_AHEAD" in vars(one)}
    core = {"CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader", "CLIPVisionLoader", "ControlNetLoader"}
    core |= {"StyleModelLoader", "unCLIPCheckpointLoader"}
    extra = {"TripleCLIPLoader", "QuadrupleCLIPLoader", "LTXVAudioVAELoader", "LTXAVTextEncoderLoader", "ModelPatchLoader"}
    extra |= {"UpscaleModelLoader", "AudioEncoderLoader", "LatentUpscaleModelLoader"}  # here once the extra nodes were imported
    assert core <= seen and all(name.startswith("Keepwarm") for name in seen - core - extra)
    inputs = {"unet_name": "m.safetensors", "weight_dtype": "default"}
    load = node_load({"class_type": "UNETLoader", "inputs": inputs}, nodes.NODE_CLASS_MAPPINGS)
    assert dict(load.inputs) == inputs and load.files == (("diffusion_models", "m.safetensors"),)
    for name in seen:  # the extra nodes' loaders too, once they were imported
        one = nodes.NODE_CLASS_MAPPINGS[name]
        required = one.INPUT_TYPES()["required"]
        assert vars(one)["READS_AHEAD"].keys() <= required.keys(), name


def test_a_loader_that_ran_while_the_plan_was_made_is_not_read(bench, monkeypatch):
    plan = bench.ahead._plan
    monkeypatch.setattr(bench.ahead, "_plan", lambda: (plan(), bench.ahead.ran("load a"))[0])
    bench.begin("a", "b")
    bench.waits_for("b")
    assert bench.loaded == ["b"]


def test_waiting_prompts_are_looked_through_once_in_their_order(bench):
    asked = []
    prompts = WaitingPrompts(lambda: asked.append(1) or bench.classes)
    bench.put(5, "c")
    bench.put(1, "a", "b")
    bench.queue.put((2, "odd", {"1": {"class_type": "gone", "inputs": {}}}, {}, ["1"], {}))
    rows = bench.queue.get_current_queue_volatile()[1]
    assert [[load.name for load in one] for one in prompts.loads(rows)] == [["a", "b"], [], ["c"]]
    prompts.loads(rows)
    assert len(asked) == 3
    for number in range(10, 20):
        bench.put(number, "d")
    assert len(prompts.loads(bench.queue.get_current_queue_volatile()[1])) == PROMPTS_AHEAD


def test_loaders_of_the_running_prompt_are_read_side_by_side_then_the_queue_in_order(bench):
    bench.put(2, "d")
    bench.put(1, "c")
    gates = {name: bench.hold(name) for name in "abc"}
    bench.begin("a", "b")
    wait_until(lambda: set(bench.loaded) == {"a", "b"})
    time.sleep(0.05)
    assert set(bench.loaded) == {"a", "b"}, "the queue waits for the running prompt"
    gates["a"].set()
    gates["b"].set()
    wait_until(lambda: bench.loaded[2:] == ["c"])
    time.sleep(0.05)
    assert len(bench.loaded) == 3, "later prompts are read one after the other"
    gates["c"].set()
    bench.waits_for("a", "b", "c", "d")


def test_the_node_that_runs_at_once_is_not_read_ahead_nor_are_those_that_have_run(bench):
    nodes = [(node_id, node) for node_id, node in bench.prompt("a", "b", "c", "d").items() if node_id.startswith("load")]
    gates = [bench.hold("b"), bench.hold("c")]
    bench.ahead.begin(nodes)
    wait_until(lambda: set(bench.loaded) == {"b", "c"})
    bench.ahead.ran("load d")
    for gate in gates:
        gate.set()
    bench.waits_for("b", "c")
    wait_until(lambda: not bench.ahead._active)
    assert set(bench.loaded) == {"b", "c"}


def test_what_its_loader_takes_is_kept_and_what_nobody_foresees_any_more_goes(bench):
    bench.put(1, "a")
    bench.put(2, "b")
    bench.begin()
    bench.waits_for("a", "b")
    bench.queue.delete_queue_item(lambda row: row[1] == "p2")
    bench.waits_for("a")
    bench.ahead.end()
    _, item = bench.queue.get()
    time.sleep(0.3)  # between being taken from the queue and beginning, it is still wanted
    bench.waits_for("a")
    bench.ahead.begin([("load a", bench.prompt("a")["load a"])])
    time.sleep(0.3)
    bench.waits_for("a")
    assert bench.fetch("a").parent is not None and bench.loaded == ["a", "b"]
    bench.ahead.ran("load a")
    bench.waits_for()
    counters = bench.cache.stats().counters
    assert (counters.misses, counters.read_ahead, counters.ahead_unused) == (1, 2, 1)
    bench.queue.task_done(item, {}, None)


def test_what_is_read_while_the_thread_looks_for_what_nobody_wants_stays(bench, monkeypatch):
    fetch, waiting, may_ask = bench.fetch, bench.cache.ahead.waiting, threading.Event()

    def late(name):
        assert may_ask.wait(20)
        return fetch(name)

    def slow_look():
        if bench.ahead._active:
            may_ask.set()
            wait_until(waiting)
        return waiting()

    bench.put(1, "a")
    monkeypatch.setattr(bench, "fetch", late)
    monkeypatch.setattr(bench.cache.ahead, "waiting", slow_look)
    bench.begin()
    wait_until(waiting)
    wait_until(lambda: not bench.ahead._active)
    with bench.ahead._changed:
        bench.ahead._tell()
    time.sleep(0.1)
    assert {key[0] for key in waiting()} == {"a"} and bench.loaded == ["a"]


def test_prompts_that_come_while_one_runs_are_noticed(bench):
    bench.begin()
    time.sleep(0.05)
    bench.put(1, "a")
    bench.waits_for("a")


def test_nothing_begins_while_no_prompt_runs(bench):
    bench.begin()
    bench.ahead.end()
    bench.put(1, "a")
    time.sleep(0.4)
    assert not bench.loaded


@pytest.mark.parametrize("how", ["interrupt", "free", "pause"])
def test_an_interrupt_and_freeing_memory_stop_it_until_the_next_prompt(bench, how):
    bench.put(1, "a")
    bench.put(2, "b")
    bench.hold("a")
    bench.begin()
    wait_until(lambda: bench.loaded == ["a"])
    if how == "interrupt":
        interrupt_flag.set()
        interrupt_flag.set(False)
    elif how == "free":
        bench.queue.set_flag("free_memory", True)
    else:
        bench.ahead.pause("a test")
    wait_until(lambda: not bench.ahead._active)
    time.sleep(0.3)
    assert bench.loaded == ["a"] and not bench.cache.ahead.waiting() and bench.cache._table.loads.loading_bytes() == 0
    bench.queue.get_flags()
    bench.gates["a"].set()
    bench.begin()
    bench.waits_for("a", "b")


def test_a_file_that_fails_is_tried_once_until_it_is_replaced(bench):
    bench.put(1, "bad", "a")
    for _ in range(3):
        bench.begin()
        wait_until(lambda: "a" in bench.loaded and not bench.ahead._active)
        time.sleep(0.05)
    assert bench.loaded.count("bad") == 1 and bench.loaded.count("a") == 1
    with pytest.raises(OSError, match="bad"):
        bench.fetch("bad")
    (bench.folder / "bad").write_text("another, still bad")
    bench.begin()
    wait_until(lambda: bench.loaded.count("bad") == 3)


def test_what_was_read_of_a_replaced_file_goes_and_the_new_one_is_read_with_the_next_prompt(bench):
    bench.put(1, "a")
    bench.begin()
    bench.waits_for("a")
    (old,) = bench.cache.ahead.waiting()
    (bench.folder / "a").write_text("another")
    wait_until(lambda: old not in bench.cache.ahead.waiting())
    bench.begin()
    wait_until(lambda: bench.loaded == ["a", "a"])
    bench.waits_for("a")


def test_further_sources_come_last_and_are_told_when_they_are_read(bench):
    settled = []

    class Rest:
        key, name = "rest", "the rest"

        def states(self):
            return (loads.file_state(str(bench.folder / "b")),)

        def run(self):
            bench.fetch("b")

        def settle(self):
            settled.append(bench.cache.ahead.current())

    bench.ahead.add_source(lambda: [Rest()])
    bench.put(1, "a")
    bench.begin()
    bench.waits_for("a", "b")
    wait_until(lambda: settled == [None])
    assert bench.loaded == ["a", "b"]


def test_later_prompts_must_fit_under_the_cap_and_the_next_one_need_not(bench):
    for number in range(10):  # of 10 bytes each, under a cap of 100
        bench.fetch(f"n{number}")
    bench.put(1, "a")
    bench.put(2, "b")
    bench.begin()
    bench.waits_for("a")
    wait_until(lambda: not bench.ahead._active)
    assert bench.cache.stats().counters.evictions == {}


@pytest.mark.parametrize(
    "raised", [SystemExit("x"), KeyboardInterrupt(), GeneratorExit(), RuntimeError("x")], ids=lambda one: type(one).__name__
)
def test_whatever_a_loader_raises_ends_its_load_only(bench, raised):
    class Raises:
        key, name = "r", "r"

        def states(self):
            return ()

        def run(self):
            raise raised

    ended = []
    RunningLoad(Raises(), (), Place.NEXT, bench.cache, ended.append).start()
    wait_until(lambda: ended)
    assert ended[0].outcome is Outcome.FAILED
