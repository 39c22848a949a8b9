"""Opening the store by the flags, and what the RAM model cache asks of it."""

import os
import shutil
import tempfile

import pytest
from residency_models import arguments

from comfy.cli_args import parser
from comfy.ram_model_cache.cache import CacheSettings, NullRamModelCache, OwnerHooks, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.ram_model_store.at_hand import parts_at_hand
from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, SHARED_MEMORY, StoreRefused, file_system_of
from comfy.residency import model_store
from comfy.residency.model_cache import CacheOwner
from comfy.residency.model_store import make_store

GIB = 1 << 30
MIB = 1 << 20
MEMORY = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))


@pytest.fixture
def folder():
    """The path of a folder on a memory file system."""
    if not os.path.isdir(SHARED_MEMORY) or file_system_of(os.stat(SHARED_MEMORY).st_dev) not in MEMORY_FILE_SYSTEMS:
        pytest.skip("there is no memory file system")
    path = tempfile.mkdtemp(prefix="keepwarm-test-", dir=SHARED_MEMORY)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def cache():
    """A cache of 30 MiB."""
    made = RamModelCache(CacheSettings(30 * MIB), OwnerHooks(), start_thread=lambda run: None)
    yield made
    made.close()


def test_the_flags_name_the_folder_and_the_size(folder, cache):
    store = make_store(arguments(ram_model_store=folder), cache, MEMORY)
    assert (store.folder.path, store.cap_bytes) == (folder, 30 * MIB)
    assert make_store(arguments(ram_model_store=folder, ram_model_store_mb=7), cache, MEMORY).cap_bytes == 7 * MIB
    huge = make_store(arguments(ram_model_store=folder, ram_model_store_mb=1 << 40), cache, MEMORY)
    assert huge.cap_bytes == huge.folder.total_bytes()


def test_without_the_cache_there_is_no_store_and_that_is_said(folder, caplog):
    assert make_store(arguments(ram_model_store=folder), NullRamModelCache(), MEMORY) is None
    assert "no effect" in caplog.text and os.listdir(folder) == []


def test_a_named_folder_is_refused_where_auto_only_says_so(folder, cache, monkeypatch, caplog):
    os.chmod(folder, 0o755)
    with pytest.raises(StoreRefused, match="chmod"):
        make_store(arguments(ram_model_store=folder), cache, MEMORY)
    with pytest.raises(StoreRefused):
        make_store(arguments(ram_model_store=f"{folder}/no/such"), cache, MEMORY)

    def no_room():
        raise StoreRefused("--shm-size")

    monkeypatch.setattr(model_store, "auto_folder", no_room)
    assert make_store(arguments(ram_model_store="auto"), cache, MEMORY) is None and "--shm-size" in caplog.text


def test_elsewhere_than_on_linux_it_is_refused(folder, cache, monkeypatch):
    monkeypatch.setattr(model_store.sys, "platform", "win32")
    with pytest.raises(StoreRefused, match="Linux"):
        make_store(arguments(ram_model_store=folder), cache, MEMORY)


@pytest.mark.parametrize("size", ["0", "-1", "x", "1.5"])
def test_a_size_is_a_number_of_mb(size, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--ram-model-store-mb", size])
    assert "MB from 1 on" in capsys.readouterr().err or size == "-1"


class Model:
    """The least that the cache takes for a model."""

    parent = None

    def __init__(self):
        self.model = self

    def clone(self):
        clone = Model()
        clone.model, clone.parent = self.model, self
        return clone


def test_a_part_that_is_at_hand_needs_no_memory_and_evicts_nobody(caplog):
    asked = []

    class Store:
        def relieve(self, wanted_bytes):
            asked.append(wanted_bytes)

    owner = CacheOwner(memory=HostMemory(system=lambda: MemoryView(64 * GIB, 2 * GIB + MIB)), store=Store)
    measure = {"measure": lambda patcher: {id(patcher.model): 10}}
    hooks = OwnerHooks(owner.available_bytes, fresh_bytes=owner.fresh_bytes, relieve=owner.relieve, **measure)
    cache = RamModelCache(CacheSettings(GIB, headroom_bytes=GIB), hooks, start_thread=lambda run: None)
    cache.fetch({"kept": 10}, lambda missing: {"kept": Model()})
    token = parts_at_hand.set({"stored": None})
    assert cache.reserve("stored", GIB - MIB) and asked == [] and cache.is_held("kept") is False
    parts_at_hand.reset(token)
    cache.abandon("stored")
    assert [entry["model"] for entry in cache.entries()] == ["kept"]
    cache.reserve("read", 2 * GIB)
    assert asked and asked[0] >= GIB - MIB, "what the store holds goes first"
    cache.abandon("read")
    cache.close()
