"""LoRA files are read once per content, and adding one again gives the former patches."""

import os

import pytest
import torch
from residency_models import Layers, arguments, batch, management, patcher_of
from safetensors.torch import save_file

import comfy.loading.lora
import comfy.lora
import comfy.sd
import comfy.utils
from comfy.hooks import EnumWeightTarget, HookGroup, create_hook_lora, create_target_dict
from comfy.loading.lora_changes import lora_changes
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
    assert len(parsed) == 1 and first.patches_uuid == again.patches_uuid != stronger.patches_uuid
    assert again.get_attachment("lora_metadata") == {"seed": "1"} and base.patches == {}
    plain = comfy.sd.load_lora_for_models(base, None, dict(lora), 0.5, 0.0)[0]
    assert plain.patches_uuid == first.patches_uuid, "other ways to the same patches lead to the same weights"


def test_a_file_is_looked_through_once_for_the_same_models(managed, file, monkeypatch):
    monkeypatch.setattr(comfy.lora, "model_lora_keys_unet", lambda model, key_map: {"x": "first.weight"})
    parsed, load = [], comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda *arguments: parsed.append(1) or load(*arguments))
    models, lora = [patcher_of(Layers()) for _ in range(2)], load_lora_file(file)
    for _ in range(2):
        found = [lora_changes(load_lora_file(file, lora), model.model, None) for model in models]
        assert len(parsed) == 2
    assert found[0].keys() == {"first.weight"} and found[0]["first.weight"].weights[0] is lora["x.lora_up.weight"]
    hook = create_hook_lora(lora, 1.0, 1.0).hooks[0]
    before = len(parsed)
    for _ in range(3):  # each sampling registers its hooks again
        clone = models[0].clone()
        assert hook.add_hook_patches(clone, {}, create_target_dict(EnumWeightTarget.Model), HookGroup())
        assert list(clone.hook_patches[hook.hook_ref]) == ["first.weight"]
    assert len(parsed) == before + 1
    lora["x.lora_down.weight"].mul_(2)
    lora_changes(lora, models[0].model, None)
    assert len(parsed) == before + 2, "tensors that somebody wrote to are looked at anew"


def test_what_is_kept_of_changes_beside_the_weights_holds_no_weight(managed, file, monkeypatch):
    monkeypatch.setattr(comfy.lora, "model_lora_keys_unet", lambda model, key_map: {"x": "first.weight"})
    base, lora = patcher_of(Layers()), load_lora_file(file)
    patched_models().clear()
    before = patched_models().describe()
    plain = base.model(batch())
    made = []
    for strength in (0.5, 0.5, 1.0):
        made.append(comfy.sd.load_bypass_lora_for_models(base.clone(), None, lora, strength, 0.0)[0])
        managed.load_models_gpu([made[-1]])
        made[-1] = made[-1].model(batch())
    managed.load_models_gpu([base])
    assert torch.equal(base.model(batch()), plain) and torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2]) and not torch.equal(made[0], plain)
    after = patched_models().describe()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (1, 2)
    assert after["bytes"] == sum(tensor.nbytes for tensor in lora.values())
