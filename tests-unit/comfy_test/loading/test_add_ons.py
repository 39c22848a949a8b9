"""Networks that packs add are parts of the RAM model cache: built once per file and options, counted, evicted, brought to the device."""

import functools

import pytest
import torch
from residency_models import MIB, arguments, management
from safetensors.torch import save_file

import comfy.model_management
from comfy.families.model_errors import ModelFileError
from comfy.loading.add_ons import load_add_on
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache

GIB = 1024**3
built = []


class Scale(torch.nn.Module):
    def __init__(self, tensors):
        super().__init__()
        built.append(tensors)
        self.weight = torch.nn.Parameter(tensors["net.weight"], requires_grad=False)

    def forward(self, x):
        return x @ self.weight


@pytest.fixture(params=[(None, 64), (MIB, 64), (None, 0)], ids=["processor", "simulated", "no cache"])
def managed(request):
    vram_bytes, cache_mb = request.param
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    cache = functools.partial(make_ram_cache, arguments(ram_model_cache_mb=cache_mb))
    built.clear()
    with management(vram_bytes, cache=cache, memory=memory) as manager:
        yield manager
        manager.ram_cache.close()


@pytest.fixture(params=["safetensors", "pt"])
def file(request, tmp_path):
    path = str(tmp_path / f"adapter.{request.param}")
    weight = torch.ones(4, 4)
    if request.param == "safetensors":
        save_file({"net.weight": weight}, path)
    else:
        torch.save({"net": {"weight": weight}, "rest": {}}, path)
    return path


def test_it_is_built_once_per_file_and_options(managed, file):
    first, again = (load_add_on(file, "adapter", Scale) for _ in range(2))
    other = load_add_on(file, "adapter", Scale, {"dtype": "fp16"})
    assert first.key == again.key != other.key
    if not managed.ram_cache.enabled:
        assert len(built) == 3
        return
    assert len(built) == 2 and first.patcher is not again.patcher and first.patcher.model is again.patcher.model
    assert managed.ram_cache.check() == []
    (entry,) = [entry for entry in managed.ram_cache.entries() if entry["bytes"] and "dtype" not in str(entry)][:1]
    assert entry["bytes"] == 64


def test_it_goes_to_the_device_and_back(managed, file):
    add_on = load_add_on(file, "adapter", Scale)
    comfy.model_management.load_models_gpu([add_on.patcher])
    assert add_on.patcher.loaded_size() == 64 and sum(device.used_bytes() for device in managed.devices.accelerators) in (0, 64)
    answer = add_on.patcher.model(torch.ones(1, 4).to(add_on.patcher.load_device))
    assert answer.tolist() == [[4.0] * 4]
    comfy.model_management.unload_all_models()
    assert add_on.patcher.loaded_size() == 0 and all(device.used_bytes() == 0 for device in managed.devices.accelerators)


def test_a_file_that_holds_something_else_is_named(managed, tmp_path):
    path = str(tmp_path / "odd.safetensors")
    save_file({"other": torch.ones(1)}, path)
    with pytest.raises(ModelFileError, match=r"odd\.safetensors.*net\.weight"):
        load_add_on(path, "adapter", Scale)
    with pytest.raises(OSError, match="absent"):
        load_add_on(str(tmp_path / "absent.safetensors"), "adapter", Scale)
