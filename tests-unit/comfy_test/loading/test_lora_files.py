"""LoRA files are read once per content, and adding one again gives the former patches."""

import os

import pytest
import torch
from residency_models import Layers, arguments, management, patcher_of
from safetensors.torch import save_file

import comfy.loading.lora
import comfy.lora
import comfy.sd
import comfy.utils
from comfy.loading.lora_files import load_lora_file
from comfy.patching.patched_models import patched_models
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache

GIB = 1024**3


@pytest.fixture(params=[1024, 0], ids=["cached", "not cached"])
def managed(request):
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=request.param), owner), memory=memory) as manager:
        yield manager
        manager.ram_cache.close()


@pytest.fixture
def file(tmp_path):
    path = str(tmp_path / "style.safetensors")
    write(path, 1)
    return path


@pytest.fixture
def reads(monkeypatch):
    """The paths of the files that are read, in turn."""
    paths, read = [], comfy.utils.load_torch_file

    def counting(path, **options):
        paths.append(path)
        return read(path, **options)

    monkeypatch.setattr(comfy.utils, "load_torch_file", counting)
    return paths


def write(path, seed):
    source = torch.Generator().manual_seed(seed)
    tensors = {"x.lora_up.weight": torch.randn(64, 2, generator=source), "x.lora_down.weight": torch.randn(2, 32, generator=source)}
    save_file(tensors, path, {"seed": str(seed)})
    os.utime(path, ns=(seed, seed))


def test_a_file_is_read_once_until_it_changes(managed, file, reads):
    first = load_lora_file(file)
    with torch.inference_mode():
        again = load_lora_file(file, first)
    assert reads == [file] and all(again[name] is tensor for name, tensor in first.items()) and again.metadata == {"seed": "1"}
    assert not any(tensor.is_inference() for tensor in again.values())
    write(file, 2)
    other = load_lora_file(file, again)
    assert reads == [file] * 2 and other.metadata == {"seed": "2"} and other.key != first.key


def test_other_readers_find_it_in_the_cache(managed, file, reads):
    kept = load_lora_file(file)
    load_lora_file(file)
    assert len(reads) == (1 if managed.ram_cache.enabled else 2)
    if managed.ram_cache.enabled:
        tiers = [(receipt["model"], receipt["tier"]) for receipt in managed.ram_cache.receipts(None)]
        assert tiers == [("lora of style.safetensors", "disk"), ("lora of style.safetensors", "ram")]
        assert managed.ram_cache.check() == [] and managed.ram_cache.stats().kept_bytes == sum(tensor.nbytes for tensor in kept.values())


def test_tensors_that_a_node_pack_wrote_to_are_not_handed_on(managed, file, reads):
    first = load_lora_file(file)
    expected = first["x.lora_up.weight"].clone()
    first["x.lora_up.weight"].mul_(2)
    assert torch.equal(load_lora_file(file, first)["x.lora_up.weight"], expected) and len(reads) == 2


def test_a_missing_file_is_named(managed, tmp_path):
    with pytest.raises(OSError, match="absent"):
        load_lora_file(str(tmp_path / "absent.safetensors"))


def test_adding_a_file_again_gives_the_former_patches(managed, file, monkeypatch):
    monkeypatch.setattr(comfy.lora, "model_lora_keys_unet", lambda model, key_map: {"x": "first.weight"})
    parsed, load = [], comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda *arguments: parsed.append(1) or load(*arguments))
    base, lora = patcher_of(Layers()), load_lora_file(file)
    patched_models().clear()

    def added(model, strength):
        return comfy.sd.load_lora_for_models(model, None, lora, strength, 0.0, lora_metadata=lora.metadata)[0]

    first, again, stronger = added(base, 0.5), added(base.clone(), 0.5), added(base, 0.75)
    assert len(parsed) == 2 and first.patches_uuid == again.patches_uuid != stronger.patches_uuid
    assert again.get_attachment("lora_metadata") == {"seed": "1"} and base.patches == {}
    plain = comfy.sd.load_lora_for_models(base, None, dict(lora), 0.5, 0.0)[0]
    assert plain.patches_uuid == first.patches_uuid, "other ways to the same patches lead to the same weights"
