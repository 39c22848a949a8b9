"""The RAM model cache over the owner's real patchers and loaded models; runs in any ComfyUI that has ``comfy.model_patcher``."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
cli_args = pytest.importorskip("comfy.cli_args")
if not torch.cuda.is_available():
    cli_args.args.cpu = True

from comfy import model_management, model_patcher  # noqa: E402
from comfy.ram_model_cache.cache import CacheSettings, DeviceEvent, OwnerHooks, RamModelCache  # noqa: E402

CPU = torch.device("cpu")


def build(missing):
    """A loader: one patcher per key over a new module."""
    return {key: model_patcher.ModelPatcher(torch.nn.Linear(64, 64), CPU, CPU) for key in missing}


def restore(patcher):
    """Undo patches the way an owner does it at a safe point."""
    patcher.detach(True)


@pytest.fixture
def cache():
    forgotten = []
    made = RamModelCache(
        CacheSettings(1 << 20, headroom_bytes=0),
        OwnerHooks(forget_loaded=forgotten.append, restore_base=restore),
        start_thread=lambda run: None,
    )
    made.forgotten = forgotten
    yield made
    assert made.check() == []


def get(cache, key="model"):
    return cache.fetch({key: 16640}, build)[key]


def loaded(patcher):
    entry = model_management.LoadedModel(patcher)
    entry.model_load()
    return entry


def test_hit_shares_the_module_and_counts_its_bytes(cache):
    module = get(cache).model
    assert get(cache).model is module
    assert cache.stats().kept_bytes == 16640


def test_loaded_model_is_never_dead_when_its_clone_dies(cache):
    clone = get(cache)
    entry = loaded(clone)
    assert cache.reclaim(entry)
    del clone
    gc.collect()
    assert not entry.is_dead()
    assert entry.model is not None
    entry.model_unload()
    assert cache.retain(entry)
    assert cache.stats().kept == 1


def test_the_second_arrival_of_a_kept_model_is_a_return_from_ram(cache):
    clone = get(cache)
    events = []
    for _ in range(2):
        entry = loaded(clone)
        events.append(cache.reclaim(entry))
        entry.model_unload()
        events.append(cache.retain(entry))
    assert events == [DeviceEvent.ARRIVED, DeviceEvent.LEFT, DeviceEvent.RETURNED, DeviceEvent.LEFT] and all(events)
    cache.clear()
    assert cache.reclaim(loaded(clone)) is DeviceEvent.NOT_KEPT and not DeviceEvent.NOT_KEPT


def test_patched_clones_leave_the_base_bit_identical(cache):
    clone = get(cache)
    before = {name: tensor.clone() for name, tensor in clone.model.state_dict().items()}
    for strength in (0.5, 1.25):
        patched = clone.clone()
        patched.add_patches({"weight": (torch.randn(64, 64),)}, strength)
        entry = loaded(patched)
        cache.reclaim(entry)
        assert not torch.equal(patched.model.weight, before["weight"])
        assert cache.stats().kept_bytes == 16640 + 16384
        del patched
        clone = get(cache)
        cache.safe_point()
        entry.model_unload()
        cache.retain(entry)
    module = clone.model
    del clone
    cache.safe_point()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert cache.stats().kept_bytes == 16640


def test_evicted_module_is_freed_without_a_collection(cache):
    module = weakref.ref(get(cache).model)
    gc.collect()
    gc.disable()
    try:
        cache.clear()
        assert module() is None
    finally:
        gc.enable()


def test_eviction_of_a_model_on_its_device_has_the_host_forget_it_once(cache):
    entry = loaded(get(cache))
    cache.reclaim(entry)
    gc.collect()
    cache.clear()
    cache.clear()
    assert len(cache.forgotten) == 1
    assert cache.forgotten[0] is entry
