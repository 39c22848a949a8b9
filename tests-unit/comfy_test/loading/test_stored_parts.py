"""Loaders and the store of weights: what one cache read, another one maps; what cannot be shared is read as without a store."""

import contextlib
import gc
import os
import pathlib
import shutil
import tempfile

import pytest
import torch
from residency_models import arguments, management
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import small_checkpoint

import comfy.model_management
import comfy.sd
import comfy.weight_files.reader as reading
from comfy.loading import stored_parts
from comfy.loading.lora_files import load_lora_file
from comfy.loading.stored_source import Shelf, StoredSource
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.ram_model_cache.storage import host_storages
from comfy.ram_model_store.description import check, describe
from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, SHARED_MEMORY, StoreFolder, file_system_of
from comfy.ram_model_store.store import RamModelStore
from comfy.residency.model_cache import make_ram_cache
from comfy.residency.pinning import PinLedger

GIB = 1024**3


@pytest.fixture
def store_folder():
    """A folder on a memory file system."""
    if not os.path.isdir(SHARED_MEMORY) or file_system_of(os.stat(SHARED_MEMORY).st_dev) not in MEMORY_FILE_SYSTEMS:
        pytest.skip("there is no memory file system")
    path = tempfile.mkdtemp(prefix="keepwarm-test-", dir=SHARED_MEMORY)
    yield StoreFolder(path)
    shutil.rmtree(path)


@pytest.fixture
def a_server(store_folder, monkeypatch):
    """Contexts with a cache of their own and the store that all share; each gives (cache, store)."""

    @contextlib.contextmanager
    def start(cap_bytes=GIB):
        memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
        store = RamModelStore(store_folder, cap_bytes)
        with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
            monkeypatch.setattr(comfy.model_management.process_models(), "_store", store)
            yield manager.ram_cache, store
            assert manager.ram_cache.check() == [] and check(store) == []
            manager.ram_cache.close()
            monkeypatch.setattr(comfy.model_management.process_models(), "_store", None)

    return start


@pytest.fixture
def path(tmp_path):
    """A small checkpoint of this test's own."""
    return shutil.copy(small_checkpoint(dtype="fp16"), tmp_path / "model.safetensors")


def modules(parts):
    """The modules of what a checkpoint loader gave."""
    return [getattr(part, "patcher", part).model for part in parts if part is not None]


def weights(parts):
    """{name: a copy of the weight} of all parts."""
    return {f"{at} {name}": one.detach().clone() for at, module in enumerate(modules(parts)) for name, one in module.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(one, right[name]) and one.dtype == right[name].dtype for name, one in left.items()
    )


def load(path, **options):
    return comfy.sd.load_checkpoint_guess_config(str(path), **options)


def tiers(cache):
    return [receipt["tier"] for receipt in cache.receipts(None)]


@contextlib.contextmanager
def no_file_is_opened(monkeypatch):
    """Nothing in the block opens a model file."""
    with monkeypatch.context() as patched:
        patched.setattr(reading.WeightReader, "__init__", lambda *arguments, **more: pytest.fail("a model file was opened"))
        yield


def test_the_next_server_maps_what_the_first_read_and_opens_no_file(a_server, path, monkeypatch):
    with a_server() as (cache, _):
        first = weights(load(path))
        assert tiers(cache) == ["disk"] * 3
    gc.collect()
    with a_server() as (cache, store):
        with no_file_is_opened(monkeypatch):
            parts = load(path)
        assert same(weights(parts), first)
        receipts = cache.receipts(None)
        assert tiers(cache) == ["store"] * 3 and all(receipt["seconds"] > 0 and receipt["kept"] for receipt in receipts)
        counters = cache.stats().counters
        assert (counters.from_store, counters.read_bytes) == (3, 0) and counters.saved_seconds > 0
        for module in modules(parts):
            assert all(store.holds(weight.data_ptr(), 1) for weight in module.parameters() if weight.nbytes)
        load(path)
        assert tiers(cache)[3:] == ["ram"] * 3
        assert [file["hits"] for file in describe(store)["files"]] == [1, 1, 1]


def test_what_is_kept_lies_in_the_store_and_counts_once_in_the_cache(a_server, path):
    with a_server() as (cache, store):
        parts = load(path)
        for module in modules(parts):
            assert all(store.holds(weight.data_ptr(), 1) for weight in module.parameters() if weight.nbytes)
        kept = cache.stats().kept_bytes
        stored = describe(store)
        assert 0 < kept <= stored["bytes"] <= kept + 3 * (2 << 20) and len(stored["mapped"]) == 3
        del parts, module
        cache.clear("tested")
        gc.collect()
        assert describe(store)["mapped"] == [] and len(describe(store)["files"]) == 3
        assert weights(load(path)) and tiers(cache)[3:] == ["store"] * 3


def test_parts_that_are_there_are_mapped_and_only_the_others_are_read(a_server, path):
    with a_server() as (cache, _):
        whole = weights(load(path))
    gc.collect()
    with a_server() as (cache, store):
        for file in describe(store)["files"]:
            if file["model"].startswith("clip"):
                os.unlink(os.path.join(store.folder.path, file["name"]))
        assert same(weights(load(path)), whole)
        assert tiers(cache) == ["store", "disk", "store"] and 0 < cache.stats().counters.read_bytes < os.path.getsize(path) / 2
    gc.collect()
    with a_server() as (cache, _):
        assert same(weights(load(path)), whole) and tiers(cache) == ["store"] * 3


def test_a_replaced_file_is_read_and_its_old_parts_go(a_server, path):
    with a_server() as (_, store):
        load(path)
        before = {file["name"] for file in describe(store)["files"]}
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    tensors = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata)
    gc.collect()
    with a_server() as (cache, store):
        found = weights(load(path))
        assert tiers(cache) == ["disk"] * 3
        after = {file["name"] for file in describe(store)["files"]}
        assert len(after) == 3 and not before & after
    with management():
        assert same(weights(load(path)), found)


def test_options_and_dtype_flags_have_parts_of_their_own(a_server, path, monkeypatch):
    with a_server() as (cache, store):
        load(path)
        kept = modules(load(path, model_options={"dtype": torch.bfloat16}, output_clip=False, output_vae=False))[0]
        assert next(kept.parameters()).dtype is torch.bfloat16 and tiers(cache)[3:] == ["disk"]
        assert len(describe(store)["files"]) == 4
    gc.collect()
    monkeypatch.setattr(comfy.cli_args.args, "bf16_vae", True)
    with a_server() as (cache, store):
        load(path)
        assert tiers(cache) == ["disk"] * 3
    gc.collect()
    with a_server() as (cache, _):
        load(path)
        assert tiers(cache) == ["store"] * 3


def test_a_pack_that_writes_in_place_changes_its_own_process_only(a_server, path):
    with a_server() as (_, _store):
        parts = load(path)
        original = weights(parts)
        with torch.no_grad():
            for weight in modules(parts)[0].parameters():
                weight.add_(1)
        assert not same(weights(parts), original)
        del parts
    gc.collect()
    for _ in range(2):
        with a_server() as (cache, _):
            parts = load(path)
            assert tiers(cache) == ["store"] * 3 and same(weights(parts), original)
            with torch.no_grad():
                for weight in modules(parts)[1].parameters():
                    weight.zero_()
            del parts
        gc.collect()


def test_a_stored_part_that_does_not_hold_what_a_loader_asks_is_read_instead(a_server, path, monkeypatch):
    with a_server() as (_, _store):
        whole = weights(load(path))
    gc.collect()
    monkeypatch.setattr("comfy.ram_model_store.mapping.MappedPart.tensors", lambda *arguments: None)
    with a_server() as (cache, _):
        assert same(weights(load(path)), whole) and tiers(cache) == ["disk"] * 3


@pytest.mark.parametrize("when", ["at first", "half-way"])
def test_a_full_file_system_leaves_models_in_private_memory(a_server, path, monkeypatch, when, caplog):
    real, calls = os.posix_fallocate, []

    def full(descriptor, start, size):
        calls.append(start)
        if when == "at first" or start:
            raise OSError(28, os.strerror(28))
        real(descriptor, 0, size)

    with management():
        expected = weights(load(path))
    if when == "half-way":
        monkeypatch.setattr("comfy.ram_model_store.store.TABLE_ROOM_BYTES", 4096)
        monkeypatch.setattr(stored_parts.StoredParts, "_writer", _small_writer)
    with a_server() as (cache, store):
        with monkeypatch.context() as patched:
            patched.setattr(os, "posix_fallocate", full)
            assert same(weights(load(path)), expected) and tiers(cache) == ["disk"] * 3
        assert describe(store)["files"] == [] and calls and "No space left" in caplog.text
        assert [name for name in os.listdir(store.folder.path) if name.endswith(".writing")] == []


def _small_writer(self, key, size_bytes):
    """A writer for a part that turns out a little larger than was thought."""
    return self._store.begin(self._keys[key], int(size_bytes() * 0.97))


def test_a_load_that_fails_or_whose_file_changes_leaves_nothing(a_server, path, monkeypatch):
    with a_server() as (cache, store):
        real = comfy.sd.VAE.__init__

        def broken(self, *arguments, **more):
            real(self, *arguments, **more)
            raise RuntimeError("the autoencoder broke")

        with monkeypatch.context() as patched:
            patched.setattr("comfy.loading.checkpoint.VAE.__init__", broken)
            with pytest.raises(RuntimeError, match="broke"):
                load(path)
        assert all(not file["model"].startswith("vae") for file in describe(store)["files"])
        load(path)
        assert len(describe(store)["files"]) == 3
    gc.collect()
    with a_server() as (cache, store):
        store.clear("tested")
        with monkeypatch.context() as patched:
            patched.setattr("comfy.loading.stored_parts.WeightsKey.is_current", lambda self: False)
            load(path)
        assert describe(store)["files"] == []


def test_a_pickled_checkpoint_is_stored_too(a_server, path, tmp_path, monkeypatch):
    plain = tmp_path / "vae.pt"
    torch.save(
        {"state_dict": {k.removeprefix("first_stage_model."): v for k, v in load_file(path).items() if k.startswith("first_stage")}}, plain
    )
    with a_server() as (cache, _):
        first = weights([comfy.sd.load_vae(str(plain))])
    gc.collect()
    with a_server() as (cache, _):
        with monkeypatch.context() as patched:
            patched.setattr("comfy.utils.load_torch_file", lambda *arguments, **more: pytest.fail("a model file was opened"))
            again = comfy.sd.load_vae(str(plain))
        assert same(weights([again]), first) and tiers(cache) == ["store"]


def test_a_part_that_is_refused_does_not_go_into_the_others(a_server, path, monkeypatch):
    with a_server() as (_, store):
        load(path)
        usual = {file["model"]: file["bytes"] for file in describe(store)["files"]}
        store.clear("tested")
    gc.collect()
    with a_server() as (_, store):
        real = store.begin
        monkeypatch.setattr(store, "begin", lambda key, size: None if key.label.startswith("model") else real(key, size))
        load(path)
        found = {file["model"]: file["bytes"] for file in describe(store)["files"]}
        assert found == {label: size for label, size in usual.items() if not label.startswith("model")}


def test_loras_and_parts_that_a_file_lacks_take_no_place(a_server, path, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"a.lora_up.weight": torch.ones(4, 2), "a.lora_down.weight": torch.ones(2, 4)}, lora)
    alone = small_checkpoint(dtype="fp16", parts=("unet",))
    with a_server() as (cache, store):
        load_lora_file(str(lora))
        assert describe(store)["files"] == [] and tiers(cache) == ["disk"]
        assert load(alone)[1] is None
        assert [file["model"].split()[0] for file in describe(store)["files"]] == ["model"]


def test_while_another_server_reads_a_part_this_one_waits_and_maps_it(a_server, path, monkeypatch):
    with a_server() as (_, store):
        whole = weights(load(path))
        kept = {
            name: pathlib.Path(store.folder.path, name).read_bytes() for name in os.listdir(store.folder.path) if name.endswith("weights")
        }
        store.clear("tested")
    gc.collect()
    with a_server() as (cache, store):
        other = RamModelStore(store.folder, GIB)
        real, waited = RamModelStore.claim, []

        def claim(self, key, check, wait=True):
            """As if the other server had read *key* while this one waited for it."""
            held = real(other, key, lambda: None)

            def finish_meanwhile():
                if not waited or waited[-1] != key.label:
                    waited.append(key.label)
                    place = pathlib.Path(store.folder.path, key.name)
                    place.touch(0o600)
                    place.write_bytes(kept[key.name])
                    held.release()

            return real(self, key, finish_meanwhile, wait)

        monkeypatch.setattr(RamModelStore, "claim", claim)
        assert same(weights(load(path)), whole) and tiers(cache) == ["store"] * 3 and len(waited) == 3


def test_parts_of_the_store_are_never_page_locked(a_server, path):
    class Backend:
        def pin(self, address, size_bytes):
            return True

        def unpin(self, address):
            return True

    with a_server() as (_, store):
        weight = max(modules(load(path))[0].parameters(), key=lambda one: one.nbytes)
        ledger = PinLedger(GIB, Backend())
        ledger.keeps_out = store.holds
        assert not ledger.pin(weight.data) and ledger.total_bytes() == 0
        own = torch.zeros(4096)
        assert ledger.pin(own) and ledger.unpin(own)


def test_a_source_opens_its_file_once_and_only_when_it_must(path):
    opened = []

    class Source:
        name, metadata, read_bytes = path, {}, 7

        def shapes(self):
            return {"a": (2, 3)}

        def dtype(self, key):
            return torch.float16

        def fixed_bytes(self, key):
            return None

        def take(self, keys, dtype):
            return {key: torch.ones(2, 3) for key in keys}

    shelf = Shelf()
    source = StoredSource(path, 0, shelf, lambda: opened.append(1) or Source())
    assert opened == [1] and source.take([], None) == {} and source.dtype("a") is torch.float16
    assert set(source.take(["a"], None)) == {"a"} and opened == [1] and source.read_bytes == 7
    assert [number for number, _ in shelf.common] == [0] and source.facts.tensors == {"a": ("float16", (2, 3))}
    shelf.is_building = True
    source.take(["a"], None)
    assert len(shelf.common) == 1


def test_without_a_store_nothing_of_it_runs(path, monkeypatch):
    monkeypatch.setattr(stored_parts.StoredParts, "__init__", lambda *arguments: pytest.fail("there is no store"))
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
        assert sum(host_storages(load(path)[0]).values()) > 0
        manager.ram_cache.close()


def test_weights_damaged_in_the_store_are_read_again_whoever_has_the_model(a_server, path, caplog):
    with a_server():
        expected = weights(load(path))
    with a_server() as (cache, store), next(pathlib.Path(store.folder.path).glob("*.weights")).open("r+b") as file:
        store.checker.start_thread = lambda run: run()
        os.pwrite(file.fileno(), bytes(64), 8192)
        assert not same(weights(load(path)), expected) and "may be wrong" in caplog.text
        assert same(weights(load(path)), expected) and sorted(tiers(cache)[3:]) == ["disk", "ram", "ram"]
