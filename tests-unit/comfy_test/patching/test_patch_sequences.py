"""Random sequences of patching, loading, dropping and changing in place: weights are always what a computation from scratch gives.

``PATCH_SEQUENCES`` in the environment is how many are tried.
"""

import gc
import os
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from residency_models import Layers, batch, management, patcher_of

import comfy.model_management
from comfy.hooks import EnumWeightTarget, HookGroup, WeightHook, create_target_dict
from comfy.patch_identity.fingerprints import fingerprints
from comfy.patch_identity.registry import PatchRegistry
from comfy.patching.base_weights import BaseWeights
from comfy.patching.patch_carrier import PatcherCarrier
from comfy.weight_adapter.lora import LoRAAdapter

pytestmark = pytest.mark.timeout(900)
KEYS = {"first.weight": (64, 32), "second.weight": (32, 64), "last.weight": (32, 32)}
SEQUENCES = int(os.environ.get("PATCH_SEQUENCES", "15"))
STEPS = 20


class Made:
    """A patcher, and in words what was done to it, so that the same can be computed from scratch."""

    def __init__(self, patcher, recipe=()):
        self.patcher, self.recipe = patcher, recipe


class Workplace:
    """One base, what was made of it, and the tensors that patches come from."""

    def __init__(self, manager, source):
        self.manager, self.source = manager, source
        self.device = manager.devices.accelerators[0] if manager.devices.accelerators else None
        self.base = patcher_of(Layers())
        self.pristine = {name: value.clone() for name, value in self.base.model.state_dict().items()}
        self.restoring = BaseWeights()
        self.restoring.note(self.base)
        self.registry = PatchRegistry(PatcherCarrier(), fingerprints(), max_entries=4)
        self.factors = {(key, seed): factors(shape, seed) for key, shape in KEYS.items() for seed in (1, 2)}
        self.made = [Made(self.base)]

    def change(self, key, seed):
        """A patch of *key*, made anew from the tensors as they are, perhaps from copies of them."""
        up, down = self.factors[key, seed]
        if self.source.random() < 0.5:
            up, down = up.clone(), down.clone()
        return {key: LoRAAdapter(set(), (up, down, 2.0, None, None, None))}

    def step(self):
        """Do something at random."""
        action = self.source.choice(
            [self.patch] * 3 + [self.use] * 4 + [self.replace_object, self.drop, self.restore, self.evict, self.write]
        )
        action()

    def patch(self):
        start, key = self.source.choice(self.made), self.source.choice(list(KEYS))
        seed, strength = self.source.choice([1, 2]), self.source.choice([0.25, 1.0])
        change = self.change(key, seed)
        values = tuple(value.clone() for value in change[key].weights[:2])

        def build(clone):
            clone.add_patches(change, strength)

        if self.source.random() < 0.5:
            patcher = self.registry.patched(start.patcher, (), build)
        else:
            patcher = start.patcher.clone()
            build(patcher)
        self.made.append(Made(patcher, (*start.recipe, (key, values, strength))))

    def replace_object(self):
        start = self.source.choice(self.made)
        patcher = start.patcher.clone()
        scale = self.source.choice([1.0, 2.0])
        patcher.add_object_patch("norm", Scale(scale))
        self.made.append(Made(patcher, (*start.recipe, ("norm", scale, None))))

    def use(self):
        made = self.source.choice(self.made)
        self.manager.load_models_gpu([made.patcher])
        assert torch.equal(made.patcher.model(batch()), self.expected(made)), made.recipe
        if self.source.random() < 0.2:
            self.hooked(made)

    def hooked(self, made):
        """Switch a hook on and off again."""
        hook = WeightHook()
        hook.need_weight_init = False
        hook.weights = {"last.weight": (torch.ones(32, 32),)}
        group = HookGroup()
        group.add(hook)
        made.patcher.register_all_hook_patches(group, create_target_dict(EnumWeightTarget.Model), {})
        made.patcher.apply_hooks(group)
        made.patcher.cleanup()
        assert torch.equal(made.patcher.model(batch()), self.expected(made)), made.recipe

    def drop(self):
        if len(self.made) > 1:
            self.made.pop(self.source.randrange(1, len(self.made)))

    def restore(self):
        """What happens when no clone is left."""
        del self.made[1:]
        gc.collect(0)
        self.restoring.restore(self.base, self.source.choice([0, 10**9]))

    def evict(self):
        if self.device is not None:
            self.manager.free_memory(self.source.choice([10_000, 1e30]), self.device.torch_device)
        else:
            self.base.detach()

    def write(self):
        """Change a patch's tensor in place: patchers that hold it compute with the new values from now on."""
        key = self.source.choice(list(self.factors))
        held = self.factors[key][0]
        held.add_(1.0)
        for made in self.made[1:]:
            made.recipe = tuple(self.current(made, position, step) for position, step in enumerate(made.recipe))

    def current(self, made, position, step):
        """*step* of *made*'s recipe with the values that its patch has now."""
        if step[2] is None:
            return step
        index = sum(1 for earlier in made.recipe[:position] if earlier[0] == step[0])
        adapter = made.patcher.patches.read(step[0])[index][1]
        return step[0], tuple(value.clone() for value in adapter.weights[:2]), step[2]

    def expected(self, made):
        """The answer of a module that was never patched, with weights computed from scratch."""
        module = Layers()
        for _, values, strength in made.recipe:
            if strength is None:
                module.norm = Scale(values)
        for key in KEYS:
            weight = self.pristine[key].clone()
            for _, (up, down), strength in [step for step in made.recipe if step[0] == key]:
                weight = LoRAAdapter(set(), (up, down, 2.0, None, None, None)).calculate_weight(
                    weight, key, strength, 1.0, None, lambda change: change
                )
            module.get_parameter(key).copy_(weight)
        return module(batch())


class Scale(torch.nn.Module):
    """Replaces the norm."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale


def factors(shape, seed):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(shape[0], 2, generator=source), torch.randn(2, shape[1], generator=source)


@given(source=st.randoms(use_true_random=False), vram_bytes=st.sampled_from([None, 20_000, 10**6]))
@settings(max_examples=SEQUENCES, deadline=None)
def test_random_sequences_of_patches(source, vram_bytes):
    run(source, vram_bytes)


def run(source, vram_bytes):
    with management(vram_bytes) as manager:
        place = Workplace(manager, source)
        for _ in range(STEPS):
            place.step()
        assert place.registry.check() == []
        gone = [weakref.ref(made.patcher) for made in place.made[1:]]
        place.made.clear()
        gc.collect(0)
        assert not [reference for reference in gone if reference() is not None], "a patcher outlived its last user"
        comfy.model_management.unload_all_models()
        place.base.detach()
        assert all(torch.equal(value, place.pristine[name]) for name, value in place.base.model.state_dict().items())
        module = weakref.ref(place.base.model)
        del place
        gc.collect()
        assert module() is None
