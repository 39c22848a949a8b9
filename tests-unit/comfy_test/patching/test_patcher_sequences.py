"""Random sequences of loading, shortening, evicting, switching and dropping: never a wrong value, never a lost byte."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from residency_models import HOST, Fused, Layers, batch, management, patcher_of

from comfy.hooks import EnumWeightTarget, HookGroup, WeightHook, create_target_dict


def random_change(shape, source):
    return torch.randn(shape, generator=torch.Generator().manual_seed(source.randrange(10**6)))


class Family:
    """One module, several patchers of it, and what each must answer."""

    def __init__(self, module, width, source):
        self.base = patcher_of(module)
        self.width = width
        self.originals = dict(module.named_parameters())
        self.copies = {name: parameter.clone() for name, parameter in self.originals.items()}
        self.clones = [self.base]
        for _ in range(3):
            clone = source.choice(self.clones).clone()
            keys = source.sample(clone.weights.keys(), k=2)
            clone.add_patches({key: (random_change(clone.weights.shape(key), source),) for key in keys}, source.uniform(0.1, 1))
            self.clones.append(clone)
        self.answers = {}
        for clone in self.clones:
            clone.patch_model(HOST)
            self.answers[id(clone)] = module(batch(width)).clone()
            clone.unpatch_model(HOST)

    def check_pristine(self):
        assert all(parameter is self.originals[name] for name, parameter in self.base.model.named_parameters())
        assert all(torch.equal(self.originals[name], copy) for name, copy in self.copies.items())


@given(source=st.randoms(use_true_random=False), keeps_host_copy=st.booleans())
@settings(max_examples=4, deadline=None)
def test_random_sequences(source, keeps_host_copy):
    with management(source.choice([1500, 20_000, 45_000, 200_000])) as manager, pytest.MonkeyPatch.context() as patch:
        device = manager.devices.accelerators[0]
        patch.setattr(type(device), "keeps_host_copy", lambda self: keeps_host_copy)
        families = [Family(Layers(seed=1), 32, source), Family(Layers(seed=2), 32, source), Family(Fused(), 8, source)]
        for _ in range(60):
            family = source.choice(families)
            clone = source.choice(family.clones)
            action = source.random()
            if action < 0.6:
                manager.load_models_gpu([clone], force_patch_weights=source.random() < 0.1)
                assert torch.equal(clone.model(batch(family.width)), family.answers[id(clone)])
                with_hook(clone, family, source)
            elif action < 0.75:
                clone.partially_unload(HOST, source.randrange(30_000))
            elif action < 0.9:
                manager.free_memory(source.choice([1000, 30_000, 1e30]), device.torch_device)
            elif len(family.clones) > 2:
                family.clones.remove(clone) if clone is not family.base else None
                del clone
                gc.collect()
            assert device.used_bytes() <= device.total_bytes()
        manager.unload_all_models()
        assert device.used_bytes() == 0 and manager.current_loaded_models == []
        for family in families:
            for clone in family.clones:
                assert clone.loaded_size() == 0 and clone.backup == {} and clone.backup_buffers == {}
            if keeps_host_copy:
                family.check_pristine()
            else:
                assert all(torch.equal(parameter, family.copies[name]) for name, parameter in family.base.model.named_parameters())


def with_hook(clone, family, source):
    """Switch a hook on and off again; the answer changes, then returns."""
    if source.random() < 0.5:
        return
    hook = WeightHook()
    hook.need_weight_init = False
    key = source.choice([key for key in clone.weights if key.endswith("weight") and key != "norm.weight"])
    hook.weights = {key: (random_change(clone.weights.shape(key), source),)}
    group = HookGroup()
    group.add(hook)
    clone.register_all_hook_patches(group, create_target_dict(EnumWeightTarget.Model), {})
    clone.apply_hooks(group)
    assert not torch.equal(clone.model(batch(family.width)), family.answers[id(clone)])
    if source.random() < 0.7:
        clone.cleanup()
        assert torch.equal(clone.model(batch(family.width)), family.answers[id(clone)])
