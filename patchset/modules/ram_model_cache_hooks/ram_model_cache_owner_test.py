"""The model manager's side of the cache: off means untouched functions; on, what happens reaches the cache."""

import argparse
import asyncio
import logging
import threading
import weakref

import pytest
from ram_cache_fakes import FakeLoadedModel, FakeModule, FakePatcher, FakeTensor, patcher

from comfy.ram_model_cache.cache import CacheSettings, NullRamModelCache, OwnerHooks
from comfy.ram_model_cache.host_memory import GIB, HostMemory, MemoryView
from comfy.ram_model_cache.weights_key import weights_key
from comfy.ram_model_cache_hooks import owner as ram_cache_owner
from comfy.ram_model_cache_hooks.owner import HISTORY_NAME, STATS_NAME, ModelCacheOwner, deactivate_pins

DECORATORS = (
    "loads",
    "unloads",
    "undisturbed",
    "after_node",
    "with_receipts",
    "checkpoint",
    "text_encoder",
    "diffusion_model",
    "clip_vision",
    "controlnet",
)


def never_interrupted():
    pass


@pytest.fixture
def models():
    return []


@pytest.fixture
def host(models, tmp_path):
    memory = HostMemory(tmp_path, lambda: MemoryView(100 * GIB, 90 * GIB))
    made = ModelCacheOwner(CacheSettings(10_000, headroom_bytes=0), models, never_interrupted, memory=memory)
    yield made
    assert made.cache.check() == []
    made.cache.close()


@pytest.fixture
def key(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "file"
    path.write_bytes(b"weights")
    return weights_key("model", [path])


class Finalizer:
    def __init__(self):
        self.detached = 0

    def detach(self):
        self.detached += 1


class Model(FakeLoadedModel):
    """On the manager's list, with a finalizer."""

    def __init__(self, of):
        super().__init__(of)
        self.model_finalizer = Finalizer()

    def __eq__(self, other):
        return isinstance(other, Model)

    __hash__ = None


def arguments(mb=None, ttl=None, cpu=False, cache_ram=()):
    return argparse.Namespace(ram_model_cache_mb=mb, ram_model_cache_ttl=ttl, cpu=cpu, cache_ram=list(cache_ram))


def test_switched_off_every_decorator_returns_the_function_it_was_given(models):
    threads = threading.active_count()
    off = ModelCacheOwner(None, models, never_interrupted)

    def function():
        pass

    assert all(getattr(off, name)(function) is function for name in DECORATORS)
    assert off.vae_node(print)(function) is function
    assert off.system_stats() == {}
    off.watch_queue(object())
    off.clear()
    assert off.pending_paths() == ()
    assert threading.active_count() == threads
    assert isinstance(off.cache, NullRamModelCache)


@pytest.mark.parametrize("free_gb", [1, 90, 500])
@pytest.mark.parametrize(("given_mb", "cap_mb"), [(100, 100), (0, 0), (-1, 0), (None, 0)])
def test_the_size_is_the_flags_and_nothing_else(monkeypatch, models, given_mb, free_gb, cap_mb):
    monkeypatch.setattr(ram_cache_owner, "HostMemory", lambda: HostMemory("/nowhere", lambda: MemoryView(512 * GIB, free_gb * GIB)))
    made = ModelCacheOwner.from_args(arguments(mb=given_mb), models, never_interrupted)
    assert made.cache.enabled == bool(cap_mb)
    if cap_mb:
        assert made.system_stats()[STATS_NAME]["cap"] == cap_mb * 1024**2


def test_the_headroom_is_never_below_what_makes_the_executor_drop_results(monkeypatch, models):
    monkeypatch.setattr(ram_cache_owner, "HostMemory", lambda: HostMemory("/nowhere", lambda: MemoryView(64 * GIB, 60 * GIB)))
    for cache_ram, headroom_gb in (((), 6.4), ((12.0, 40.0), 12), ((1.0,), 6.4)):
        given = arguments(mb=1, cache_ram=cache_ram)
        assert ModelCacheOwner.from_args(given, models, never_interrupted).cache.settings.headroom == int(headroom_gb * GIB)
    single = arguments(mb=1)
    single.cache_ram = 20.0
    assert ModelCacheOwner.from_args(single, models, never_interrupted).cache.settings.headroom == 20 * GIB


def test_a_timeout_without_a_cache_is_pointed_out(models, caplog):
    with caplog.at_level(logging.WARNING):
        ModelCacheOwner.from_args(arguments(mb=0, ttl=5.0), models, never_interrupted)
    assert "--ram-model-cache-ttl has no effect" in caplog.text


def test_a_forgotten_model_leaves_the_list_by_identity_and_its_finalizer_once(host, models):
    first, second = Model(patcher(1)), Model(patcher(1))
    models += [first, second]
    finalizer = second.model_finalizer
    host.forget_loaded(second)
    host.forget_loaded(second)
    assert models == [first]
    assert models[0] is first
    assert finalizer.detached == 1


def test_loading_and_unloading_are_noted_and_nothing_is_dropped_in_between(host, models, key):
    clone = host.cache.fetch({key: 100}, lambda missing: {key: patcher(100)})[key]
    base = weakref.ref(clone.parent)
    loaded_model = Model(clone)
    seen = []

    def load_models_gpu(given):
        models.insert(0, loaded_model)
        return "loaded"

    def free_memory(required, device):
        nonlocal clone
        clone = None
        host.cache.clear()
        seen.append(base() is not None)
        return [models.pop()]

    assert host.loads(load_models_gpu)([clone]) == "loaded"
    assert [entry["on_devices"] for entry in host.cache.entries()] == [1]
    assert host.unloads(free_memory)(1, "cuda") == [loaded_model]
    assert seen == [True]
    assert base() is None
    assert loaded_model.model_finalizer.detached == 0  # ComfyUI's own model_unload does that


def test_a_load_that_fails_halfway_keeps_track_of_the_models_it_listed(host, models, key):
    clone = host.cache.fetch({key: 100}, lambda missing: {key: patcher(100)})[key]
    loaded_model = Model(clone)

    def load_models_gpu(given):
        models.insert(0, loaded_model)
        raise MemoryError

    with pytest.raises(MemoryError):
        host.loads(load_models_gpu)([clone])
    del clone
    host.clear()
    assert models == []


@pytest.mark.parametrize("by_name", [False, True])
def test_a_model_left_half_moved_by_a_failed_load_is_measured_again(host, key, by_name):
    clone = host.cache.fetch({key: 100}, lambda missing: {key: FakePatcher(FakeModule(FakeTensor(60), FakeTensor(40)))})[key]
    assert host.cache.stats().kept_bytes == 100

    def load_models_gpu(models, memory_required=0):
        models[0].model.tensors[0] = FakeTensor(60, "cuda")
        raise MemoryError("on the device")

    with pytest.raises(MemoryError, match="on the device"):
        if by_name:
            host.loads(load_models_gpu)(models=[clone])
        else:
            host.loads(load_models_gpu)([clone], 5)
    assert host.cache.stats().kept_bytes == 40


def test_walks_over_the_list_are_not_disturbed(host, key):
    base = weakref.ref(host.cache.fetch({key: 100}, lambda missing: {key: patcher(100)})[key].parent)

    def cleanup_models_gc(value):
        host.cache.clear()
        return value, base() is not None

    assert host.undisturbed(cleanup_models_gc)(3) == (3, True)
    assert base() is None


class Executor:
    def __init__(self, host, fails=False):
        self.host, self.fails, self.history_result = host, fails, {"outputs": {"of": "another prompt"}}

    async def execute_async(self, prompt, prompt_id, extra_data=None, execute_outputs=()):
        self.host.cache.note_bypass("x", "because")
        if self.fails:
            raise ValueError
        self.history_result = {"outputs": {}}
        return execute_outputs


def test_a_prompt_s_history_gets_its_receipts(host):
    run = host.with_receipts(Executor.execute_async)
    executor = Executor(host)
    assert asyncio.run(run(executor, {}, "p", execute_outputs=["7"])) == ["7"]
    assert [receipt["reason"] for receipt in executor.history_result[HISTORY_NAME]] == ["because"]
    failing = Executor(host, fails=True)
    with pytest.raises(ValueError):
        asyncio.run(run(failing, {}, "q"))
    assert HISTORY_NAME not in failing.history_result


def test_after_each_node_bases_without_users_are_restored(host, key, monkeypatch):
    restored = []
    monkeypatch.setattr(host.cache._upkeep, "_hooks", OwnerHooks(restore_base=restored.append))
    clone = host.cache.fetch({key: 100}, lambda missing: {key: patcher(100)})[key]

    async def execute(error):
        nonlocal clone
        clone = None
        if error:
            raise error
        return "done"

    run = host.after_node(execute)
    assert asyncio.run(run(None)) == "done"
    assert len(restored) == 1
    with pytest.raises(KeyError):
        asyncio.run(run(KeyError()))


def test_queued_prompts_name_files_the_running_one_does_not(host, key, tmp_path):
    path = str(tmp_path / "sub" / "file")
    host.loaders._note_loaded = lambda base: None
    host.loaders.diffusion_model(lambda unet_path, model_options=None: patcher(10))(path)

    class Queue:
        def __init__(self, *queued):
            self.queued = list(queued)

        def get_current_queue_volatile(self):
            return [(0, "running", {"1": {"inputs": {"name": "file"}}})], self.queued

    assert host.pending_paths() == ()
    host.watch_queue(Queue())
    assert host.pending_paths() == ()
    host.watch_queue(Queue((2, "b", {"1": {"inputs": {"name": "other", "n": 3}}}), (1, "a", {"1": {"inputs": {"name": "sub\\file"}}})))
    assert host.pending_paths() == (path,)
    assert host.pending_paths() == (path,)


def test_pins_are_left_to_others():
    one = patcher(1)
    one.model.dynamic_pins = {"cuda:0": {"active": True}, "cuda:1": {"active": False}}
    deactivate_pins(one)
    deactivate_pins(patcher(1))
    assert [state["active"] for state in one.model.dynamic_pins.values()] == [False, False]


class Restorable:
    """A patcher whose module may carry what a clone left."""

    def __init__(self, dynamic=False, **left):
        self.model = type("Module", (), {"current_weight_patches_uuid": left.get("applied"), "named_parameters": lambda self: ()})()
        self.backup, self.object_patches_backup, self.hook_backup = left.get("backup", {}), left.get("objects", {}), {}
        self.patches_uuid, self.dynamic, self.calls = "own", dynamic, []

    def is_dynamic(self):
        return self.dynamic

    def detach(self, unpatch_all=True):
        self.calls.append(("detach", unpatch_all))

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        self.calls.append(("unpatch", unpatch_weights))


@pytest.mark.parametrize(
    ("left", "calls"),
    [
        ({}, []),
        ({"applied": "own"}, []),
        ({"applied": "a clone's"}, [("detach", True)]),
        ({"backup": {"w": 1}}, [("detach", True)]),
        ({"objects": {"model_sampling": 1}}, [("detach", True)]),
        ({"dynamic": True, "backup": {"w": 1}}, [("unpatch", False)]),
    ],
)
def test_a_base_is_restored_when_something_was_left_and_dynamic_weights_are_left_alone(host, left, calls):
    one = Restorable(**left)
    host.restore_base(one)
    assert one.calls == calls
