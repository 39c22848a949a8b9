"""Bytes of real modules, counted once by storage; models that really leave memory."""

import gc
import weakref

import psutil
import pytest
from ram_cache_fakes import FakeDevice, FakePatcher, patcher

from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.ram_model_cache.storage import StorageLedger, base_of, hand_out, host_storages, patcher_of

torch = pytest.importorskip("torch")
MIB = 1 << 20


def test_tied_weights_and_views_count_once_and_meta_not_at_all():
    module = torch.nn.Module()
    module.a = torch.nn.Parameter(torch.zeros(100))
    module.b = module.a
    module.register_buffer("view", module.a.data[10:20])
    module.register_buffer("own", torch.zeros(5, dtype=torch.float16))
    module.register_buffer("absent", torch.empty(50, device="meta"))
    assert sum(host_storages(FakePatcher(module)).values()) == 410


def test_two_parts_of_one_arena_share_it():
    arena = torch.zeros(1000, dtype=torch.uint8)
    ledger = StorageLedger()
    for name, part in (("a", arena[:400]), ("b", arena[400:])):
        module = torch.nn.Module()
        module.register_buffer("w", part)
        ledger.put(name, host_storages(FakePatcher(module)))
    assert ledger.total_bytes == 1000
    assert ledger.own_bytes("a") == 0
    ledger.remove("b")
    assert (ledger.total_bytes, ledger.own_bytes("a")) == (1000, 1000)


def test_backups_count_as_tensors_or_as_named_pairs():
    module = torch.nn.Linear(4, 4, bias=False)
    patcher = FakePatcher(module)
    patcher.backup = {"weight": torch.zeros(10)}
    assert sum(host_storages(patcher).values()) == 64 + 40


def test_mapped_files_are_not_held(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(400))
    module = torch.nn.Module()
    module.register_buffer("w", torch.from_file(str(path), shared=True, size=100))
    if module.w.untyped_storage().filename is None:
        pytest.skip("this torch does not tell mapped files")
    assert host_storages(FakePatcher(module)) == {}


def test_subclass_without_a_storage_counts_its_elements():
    class Wrapped:
        device = FakeDevice("cpu")

        def untyped_storage(self):
            raise NotImplementedError

        def numel(self):
            return 6

        def element_size(self):
            return 2

    class Module:
        def parameters(self):
            return iter([Wrapped()])

    assert list(host_storages(FakePatcher(Module())).values()) == [12]


def test_ledger_reports_what_does_not_add_up():
    ledger, wrong = StorageLedger(), []
    ledger.put("a", {"s": 10})
    ledger.check({"a": {"s": 10}}, wrong.append)
    assert wrong == []
    ledger.check({"b": {"s": 10}}, wrong.append)
    ledger.total_bytes = 3
    ledger.check({"a": {"s": 11}}, wrong.append)
    assert len(wrong) == 4


def test_patcher_of_wrappers_patchers_and_others():
    patcher = FakePatcher(None)
    assert patcher_of(patcher) is patcher
    assert patcher_of(object()) is None
    twin = hand_out(patcher)
    assert base_of(twin.clone()) is patcher
    assert base_of(None) is None


def test_evicted_weights_leave_the_process():
    cache = RamModelCache(CacheSettings(1 << 30, headroom_bytes=0), start_thread=lambda run: None)
    process = psutil.Process()

    def load(missing):
        module = torch.nn.Module()
        for index in range(16):
            module.register_buffer(f"w{index}", torch.ones(16 * MIB, dtype=torch.uint8))
        return {"model": FakePatcher(module)}

    module = weakref.ref(cache.fetch({"model": 256 * MIB}, load)["model"].model)
    gc.collect()
    full_bytes = process.memory_info().rss
    assert cache.stats().kept_bytes == 256 * MIB
    cache.clear()
    assert module() is None
    assert full_bytes - process.memory_info().rss >= 0.95 * 256 * MIB
    assert cache.check() == []


@pytest.mark.parametrize(("pinned", "loaded", "counted"), [(0, None, 0), (7, None, 7), (7, 20, 20), (7, 0, 7), (-1, -1, 0)])
def test_a_dynamic_patcher_counts_as_the_buffers_it_has_filled_pinned_or_not(pinned, loaded, counted):
    dynamic = patcher(400, dynamic=True, pinned=pinned)
    if loaded is not None:
        dynamic.loaded_ram_size = lambda: loaded
    assert sum(host_storages(dynamic).values()) == counted
