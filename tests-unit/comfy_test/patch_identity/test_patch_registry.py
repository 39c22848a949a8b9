"""Equal bases, parameters and builders give the former patches again; anything else is built; nothing outlives its base."""

import asyncio
import gc
import weakref

import pytest
import torch
from residency_models import MIB, Layers, batch, management, patcher_of

import comfy.model_management
from comfy.patch_identity.fingerprints import fingerprints
from comfy.patch_identity.registry import PatchRegistry
from comfy.patching.patch_carrier import PatcherCarrier
from comfy.patching.patched_models import patched_models
from comfy_api.latest import ComfyAPI, ComfyAPISync
from execution import PromptExecutor


@pytest.fixture(params=[None, MIB], ids=["processor", "simulated"])
def base(request):
    with management(request.param):
        yield patcher_of(Layers())


@pytest.fixture
def registry():
    made = PatchRegistry(PatcherCarrier(), fingerprints())
    yield made
    assert made.check() == []


class Builder:
    """Counts its calls; equal to every other one."""

    calls = 0

    def patch_identity_key(self):
        return ()

    def __call__(self, model):
        type(self).calls += 1
        model.add_patches({"first.weight": (torch.ones(64, 32),)}, 0.5)
        model.set_model_attn2_replace(min, "input", 1)
        model.add_object_patch("norm", torch.nn.Identity())
        model.set_attachments("name", "value")


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr(Builder, "calls", 0)
    return Builder()


def scaling(scale):
    def build(model):
        model.set_model_attn1_patch(lambda q, k, v, extra: (q * scale, k, v))
        return model

    return build


def test_equal_parameters_give_the_same_patches_built_once(registry, base, build):
    first = registry.patched(base, (torch.ones(3), 0.5), build)
    again = registry.patched(base.clone(), (torch.ones(3), 0.5), Builder())
    assert Builder.calls == 1 and first is not again and first.model is again.model
    assert first.patches_uuid == again.patches_uuid and first.patches == again.patches
    assert (
        first.model_options == again.model_options
        and first.object_patches == again.object_patches
        and again.attachments == {"name": "value"}
    )
    comfy.model_management.load_models_gpu([first])
    answer = first.model(batch())
    comfy.model_management.load_models_gpu([again])
    assert torch.equal(again.model(batch()), answer)
    stats = registry.describe()
    assert (stats["hits"], stats["misses"], stats["entries"], stats["bytes"]) == (1, 1, 1, 64 * 32 * 4) and stats["saved_seconds"] >= 0


@pytest.mark.parametrize(
    "other",
    [
        lambda base: (base, (torch.zeros(3), 0.5), Builder()),
        lambda base: (base, (torch.ones(3), 0.25), Builder()),
        lambda base: (changed(base), (torch.ones(3), 0.5), Builder()),
        lambda base: (patcher_of(Layers()), (torch.ones(3), 0.5), Builder()),
    ],
    ids=["tensor", "number", "patches of the base", "another base"],
)
def test_another_base_or_parameter_is_built(registry, base, build, other):
    registry.patched(base, (torch.ones(3), 0.5), build)
    registry.patched(*other(base))
    assert Builder.calls == 2


def changed(base):
    clone = base.clone()
    clone.set_model_attn1_patch(max)
    return clone


def test_captured_variables_of_the_builder_count(registry, base):
    results = [registry.patched(base, (), scaling(scale)) for scale in (2.0, 3.0, 2.0)]
    functions = [result.model_options["transformer_options"]["patches"]["attn1_patch"][0] for result in results]
    assert functions[0] is functions[2] and functions[0] is not functions[1]
    assert registry.describe()["hits"] == 1


def test_results_change_independently(registry, base, build):
    first = registry.patched(base, (), build)
    first.add_patches({"last.bias": (torch.ones(32),)})
    first.model_options["transformer_options"]["mine"] = 1
    first.patches["first.weight"].clear()
    again = registry.patched(base, (), build)
    again.model_options["transformer_options"]["patches_replace"]["attn2"].clear()
    third = registry.patched(base, (), build)
    for result in (again, third):
        assert "last.bias" not in result.patches and len(result.patches["first.weight"]) == 1
    assert (
        "mine" not in third.model_options["transformer_options"]
        and len(third.model_options["transformer_options"]["patches_replace"]["attn2"]) == 1
    )


def test_a_parameter_changed_in_place_is_never_served_as_the_old_one(registry, base):
    tensor = torch.ones(3)

    def build(model):
        model.set_model_attn1_patch(lambda q, k, v, extra: (q * tensor.sum(), k, v))

    registry.patched(base, tensor, build)
    tensor.mul_(2)
    registry.patched(base, tensor, build)
    tensor.div_(2)
    registry.patched(base, tensor, build)  # the first entry's function reads the same tensor, but was outdated in between
    assert registry.describe()["misses"] == 3 and registry.describe()["outdated"] == 1


@pytest.mark.parametrize(
    "change",
    [lambda norm: norm.weight.mul_(2), lambda norm: setattr(norm, "eps", 0.5), lambda norm: norm.register_buffer("table", torch.zeros(2))],
    ids=["tensor", "number", "new attribute"],
)
def test_an_object_that_somebody_changed_is_not_served_again(registry, base, change):
    def build(model):
        model.add_object_patch("norm", torch.nn.LayerNorm(32).requires_grad_(False))

    first = registry.patched(base, (), build)
    assert registry.patched(base, (), build).object_patches["norm"] is first.object_patches["norm"]
    comfy.model_management.load_models_gpu([first])
    first.model(batch())
    assert registry.patched(base, (), build).object_patches["norm"] is first.object_patches["norm"]
    change(first.object_patches["norm"])
    again = registry.patched(base, (), build).object_patches["norm"]
    assert again is not first.object_patches["norm"] and torch.equal(again.weight, torch.ones(32)) and again.eps == 1e-5
    assert registry.describe()["outdated"] == 1


def test_what_cannot_be_compared_is_built_each_time_and_the_reason_is_shown(registry, base, build):
    for _ in range(2):
        registry.patched(base, object(), build)
    stats = registry.describe()
    assert Builder.calls == 2 and stats["unique"] == 2 and stats["entries"] == 0
    assert any("builtins.object" in reason for reason in stats["reasons"])


def keeps_model(model):
    model.set_attachments("own", [model])


def keeps_module(model):
    module = model.model
    model.set_model_attn1_patch(lambda q, k, v, extra: module)


def sets_attribute(model):
    model.mine = 1


def returns_another(model):
    return patcher_of(Layers())


def test_what_is_not_a_model_is_built_each_time(registry, build):
    class Other:
        def clone(self):
            return Other()

    assert isinstance(registry.patched(Other(), (), lambda clone: None), Other)
    assert "a Other is no model" in next(iter(registry.describe()["reasons"]))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (keeps_model, "refer to a model"),
        (keeps_module, "refer to a model"),
        (sets_attribute, "changed mine"),
        (returns_another, "not a clone"),
    ],
)
def test_patches_that_cannot_be_taken_off_are_not_kept(registry, base, build, reason):
    registry.patched(base, (), build)
    stats = registry.describe()
    assert stats["refused"] == 1 and stats["entries"] == 0 and any(reason in text for text in stats["reasons"])


def test_entries_die_with_their_base_and_keep_nothing_alive(registry, build):
    with management():
        base = patcher_of(Layers())
        module = weakref.ref(base.model)
        result = registry.patched(base, (), build)
        tensor = weakref.ref(result.patches.read("first.weight")[0][1][0])
        del base, result
        gc.collect()
        assert module() is None
        stats = registry.describe()
        assert stats["entries"] == 0 and stats["bytes"] == 0 and stats["base_gone"] == 1 and tensor() is None


def test_entries_and_bytes_are_bounded(base, build):
    few = PatchRegistry(PatcherCarrier(), fingerprints(), max_entries=2)
    for number in (1, 2, 1, 3, 1, 2):
        few.patched(base, number, build)
    assert Builder.calls == 4 and few.describe()["evictions"] == 2 and few.check() == []
    small = PatchRegistry(PatcherCarrier(), fingerprints(), max_bytes=64 * 32 * 4)
    for number in (1, 2, 2):
        small.patched(base, number, build)
    assert Builder.calls == 6 and small.describe()["entries"] == 1 and small.check() == []
    assert small.clear() == 64 * 32 * 4 and small.describe()["entries"] == 0
    tiny = PatchRegistry(PatcherCarrier(), fingerprints(), max_bytes=10)
    tiny.patched(base, 1, build)
    assert tiny.describe()["refused"] == 1


def test_errors_of_the_builder_are_raised_and_nothing_is_kept(registry, base):
    def fails(model):
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        registry.patched(base, (), fails)
    assert registry.describe()["entries"] == 0


def test_node_authors_reach_it_awaited_and_blocking(base, build):
    one = asyncio.run(ComfyAPI().patching.patched(base, 1, build))
    two = ComfyAPISync().patching.patched(base, 1, build)
    assert Builder.calls == 1 and one.patches_uuid == two.patches_uuid
    assert patched_models().describe()["hits"] >= 1
    PromptExecutor(None, forget_patches=patched_models().clear).clear_models("POST /free")
    assert patched_models().describe()["entries"] == 0
