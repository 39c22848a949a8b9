"""Hooks: weights that change between conditionings, keyframes, groups, options."""

import types

import pytest
import torch
from residency_models import Layers, batch, management, patcher_of

import comfy.hooks as hooks
import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.weight_files.state_dicts import FileTensors

ROOM = 1 << 20


def weight_hook(keys, strength=1.0, keyframes=()):
    """A group with one hook of finished patches that add 1 to *keys*."""
    hook = hooks.WeightHook(strength_model=strength)
    hook.weights = {key: ("diff", (torch.ones(shape),)) for key, shape in keys.items()}
    hook.need_weight_init = False
    group = hooks.HookGroup()
    group.add(hook)
    if keyframes:
        schedule = hooks.HookKeyframeGroup()
        for strength_, start in keyframes:
            schedule.add(hooks.HookKeyframe(strength_, start))
        group.set_keyframes_on_hooks(schedule)
    return group


KEYS = {"first.weight": (64, 32), "last.bias": (32,)}
TARGET = hooks.create_target_dict(hooks.EnumWeightTarget.Model)


@pytest.mark.parametrize("mode", hooks.EnumHookMode)
@pytest.mark.parametrize("vram_bytes", [None, ROOM, 9000], ids=["cpu", "simulated", "partial"])
def test_switching_hooks_changes_and_restores_the_same_objects(vram_bytes, mode):
    with management(vram_bytes) as manager:
        patcher = patcher_of(Layers()).clone()
        patcher.set_hook_mode(mode)
        patcher.add_patches({"second.bias": (torch.full((32,), 0.5),)})
        one, two = weight_hook(KEYS), weight_hook({"second.bias": (32,)}, strength=2.0)
        for group in (one, two):
            patcher.register_all_hook_patches(group.clone_and_combine(None), TARGET, {})
            patcher.hook_patches_backup = None
        manager.load_models_gpu([patcher])
        loaded = dict(patcher.model.named_parameters())
        plain, values = patcher.model(batch()), {name: value.clone() for name, value in loaded.items()}
        seen = {}
        for _ in range(2):
            for name, group in (("one", one), ("two", two)):
                assert patcher.apply_hooks(group) == {}
                value = patcher.model(batch())
                assert not torch.equal(value, plain) and torch.equal(seen.setdefault(name, value), value)
        assert torch.equal(patcher.model.second.bias, values["second.bias"] + 2)
        assert bool(patcher.cached_hook_patches) == (mode == hooks.EnumHookMode.MaxSpeed)
        patcher.apply_hooks(None)
        assert all(parameter is loaded[name] for name, parameter in patcher.model.named_parameters())
        assert all(torch.equal(loaded[name], value) for name, value in values.items())
        patcher.apply_hooks(one)
        patcher.cleanup()
        assert torch.equal(patcher.model(batch()), plain) and not patcher.cached_hook_patches and not patcher.hook_backup


def test_each_weight_goes_through_a_method_that_packs_override():
    seen = []

    class Noting(ModelPatcher):
        def patch_hook_weight_to_device(self, hooks, combined_patches, key, original_weights, memory_counter):
            assert not combined_patches or {*KEYS} <= original_weights.keys()
            seen.append(("patch", key))
            super().patch_hook_weight_to_device(hooks, combined_patches, key, original_weights, memory_counter)

        def patch_cached_hook_weights(self, cached_weights, key, memory_counter):
            seen.append(("cached", key))
            super().patch_cached_hook_weights(cached_weights, key, memory_counter)

    with management() as manager:
        patcher = Noting(Layers(), comfy.model_management.get_torch_device(), torch.device("cpu"))
        patcher.set_hook_mode(hooks.EnumHookMode.MaxSpeed)
        group = weight_hook(KEYS)
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        plain = patcher.model(batch())
        results = []
        for _ in range(2):
            patcher.apply_hooks(group)
            results.append(patcher.model(batch()))
            patcher.apply_hooks(None)
        assert torch.equal(*results) and not torch.equal(results[0], plain) and torch.equal(patcher.model(batch()), plain)
        assert seen == [("patch", key) for key in KEYS] + [("cached", key) for key in KEYS]
        patcher.patch_hook_weight_to_device(group, {}, "first.weight", {}, None)
        assert not patcher.hook_backup


def test_weights_of_a_hook_that_fails_halfway_are_not_kept():
    class Failing(ModelPatcher):
        def patch_hook_weight_to_device(self, hooks, combined_patches, key, original_weights, memory_counter):
            if key == "last.bias":
                raise torch.OutOfMemoryError("no room")
            super().patch_hook_weight_to_device(hooks, combined_patches, key, original_weights, memory_counter)

    with management() as manager:
        patcher = Failing(Layers(), comfy.model_management.get_torch_device(), torch.device("cpu"))
        patcher.set_hook_mode(hooks.EnumHookMode.MaxSpeed)
        group = weight_hook(KEYS)
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        with pytest.raises(torch.OutOfMemoryError):
            patcher.apply_hooks(group)
        assert not patcher.cached_hook_patches


def test_hooks_left_in_place_go_when_another_clone_loads():
    with management() as manager:
        base = patcher_of(Layers())
        plain = base.model(batch())
        clone = base.clone()
        group = weight_hook(KEYS)
        clone.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([clone])
        clone.apply_hooks(group)
        manager.load_models_gpu([base])
        assert torch.equal(base.model(batch()), plain)


def test_patches_registered_for_one_run_are_forgotten_at_the_next():
    with management():
        patcher = patcher_of(Layers())
        first, second = weight_hook(KEYS), weight_hook(KEYS)
        assert len(patcher.register_all_hook_patches(first, TARGET, {})) == 1
        assert list(patcher.hook_patches) == [first.hooks[0].hook_ref]
        patcher.register_all_hook_patches(second, TARGET, {})
        assert list(patcher.hook_patches) == [second.hooks[0].hook_ref]


def test_a_lora_file_as_a_hook():
    with management() as manager:
        model = torch.nn.Module()
        model.diffusion_model = Layers()
        patcher = patcher_of(model).clone()
        file = {"lora_unet_first.lora_up.weight": torch.ones(64, 1), "lora_unet_first.lora_down.weight": torch.ones(1, 32)}
        group = hooks.create_hook_lora(file, 0.5, 0.0)
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        patcher.apply_hooks(group)
        torch.testing.assert_close(model.diffusion_model.first.weight.data, Layers().first.weight + 0.5)
        new_model, new_clip, loaded = hooks.load_hook_lora_for_models(patcher_of(model), None, file, 0.25, 0)
        assert new_clip is None and len(new_model.hook_patches[loaded.hooks[0].hook_ref]) == 1


def test_changes_of_a_hook_that_do_not_fit_are_left_out_and_named(caplog):
    tensors = {"lora_unet_first.lora_up.weight": torch.ones(63, 1), "lora_unet_first.lora_down.weight": torch.ones(1, 32)}
    file = FileTensors(tensors, "loras/odd.safetensors")
    with management():
        model = torch.nn.Module()
        model.diffusion_model = Layers()
        patcher = patcher_of(model).clone()
        patcher.register_all_hook_patches(hooks.create_hook_lora(file, 0.5, 0.0), TARGET, {})
        assert not any(patcher.hook_patches.values())
        new_model, _, _ = hooks.load_hook_lora_for_models(patcher_of(model), None, file, 0.25, 0)
        assert not any(new_model.hook_patches.values())
    assert caplog.text.count("loras/odd.safetensors: 1 of its changes") == 2


def test_weights_of_a_model_of_another_size_as_a_hook_are_left_out(caplog):
    with management() as manager:
        patcher = patcher_of(Layers())
        group = hooks.create_hook_model_as_lora({"first.weight": torch.ones(3, 5)}, None, 0.5, 0.0)
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        patcher.apply_hooks(group)
        assert torch.equal(patcher.model.first.weight.data, Layers().first.weight)
    assert "first.weight" in caplog.text and "[3, 5]" in caplog.text


def test_another_models_weights_as_a_hook():
    with management() as manager:
        patcher, other = patcher_of(Layers()), patcher_of(Layers(seed=1))
        weights = hooks.get_patch_weights_from_model(other)
        group = hooks.create_hook_model_as_lora({"first.weight": weights["first.weight"]}, None, 0.5, 0.0)
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        patcher.apply_hooks(group)
        torch.testing.assert_close(patcher.model.first.weight.data, (Layers().first.weight + Layers(seed=1).first.weight) / 2)
        assert hooks.get_patch_weights_from_model(None) is None


def sampling(sigmas):
    return {"sample_sigmas": torch.tensor(sigmas)}


MODEL = types.SimpleNamespace(model_sampling=types.SimpleNamespace(percent_to_sigma=lambda percent: 10.0 * (1 - percent)))


def test_strength_follows_keyframes_while_sampling():
    with management() as manager:
        patcher = patcher_of(Layers())
        group = weight_hook({"last.bias": (32,)}, keyframes=[(1.0, 0.0), (0.25, 0.5)])
        patcher.register_all_hook_patches(group, TARGET, {})
        manager.load_models_gpu([patcher])
        group.hooks[0].initialize_timesteps(MODEL)
        original, strengths = Layers().last.bias, []
        for sigma in (10.0, 7.0, 4.0, 1.0):
            options = {"transformer_options": sampling([10.0, 7.0, 4.0, 1.0, 0.0])}
            patcher.prepare_hook_patches_current_keyframe(torch.tensor([sigma]), group, options)
            patcher.apply_hooks(group)
            strengths.append(round(float((patcher.model.last.bias - original).mean()), 4))
        assert strengths == [1.0, 1.0, 0.25, 0.25]


def test_guaranteed_steps_hold_a_keyframe():
    schedule = hooks.HookKeyframeGroup()
    for strength, start, steps in ((0.5, 0.0, 2), (0.75, 0.0, 0), (1.0, 0.9, 1)):
        schedule.add(hooks.HookKeyframe(strength, start, steps))
    schedule.initialize_timesteps(MODEL)
    seen = []
    for sigma in (9.0, 8.0, 7.0, 0.5):
        schedule.prepare_current_keyframe(torch.tensor(sigma), sampling([10.0, 0.0]))
        seen.append(schedule.strength)
    assert seen == [0.5, 0.5, 0.75, 1.0] and schedule.has_guarantee_steps() and not schedule.has_index(3)


def test_groups_hold_each_hook_once_and_combine_by_identity():
    one, two = weight_hook(KEYS), weight_hook(KEYS)
    both = one.clone_and_combine(two)
    assert len(both) == 2 and both.contains(one.hooks[0]) and one.is_subset_of(both) and not both.is_subset_of(one)
    both.add(one.hooks[0].clone())
    assert len(both) == 2 and len(both.get_type(hooks.EnumHookType.Weight)) == 2
    assert both.new_with_common_hooks(two).hooks == two.hooks
    both.remove(two.hooks[0])
    assert len(both) == 1
    assert hooks.HookGroup.combine_all_hooks([None, one]) is one and hooks.HookGroup.combine_all_hooks([None]) is None
    assert len(hooks.HookGroup.combine_all_hooks([one, two, one.clone()])) == 2
    with pytest.raises(ValueError, match="at least 2"):
        hooks.HookGroup.combine_all_hooks([one], require_count=2)


def test_the_text_encoder_schedule_has_a_range_per_change_of_strength():
    group = weight_hook(KEYS, keyframes=[(1.0, 0.0), (1.0, 0.2), (0.5, 0.4), (0.1, 1.0)])
    group.add(weight_hook(KEYS).hooks[0])
    schedule = group.get_hooks_for_clip_schedule()
    assert [span for span, _ in schedule] == [(0.0, 0.4), (0.4, 1.0)]
    strengths = [[None if keyframe is None else keyframe.strength for _, keyframe in holding] for _, holding in schedule]
    assert strengths == [[1.0, None], [0.5, None]]


def test_options_hooks_reach_all_conditioning_or_only_theirs():
    with management():
        patcher = patcher_of(Layers())
        for scope in hooks.EnumHookScope:
            group = hooks.HookGroup()
            group.add(hooks.TransformerOptionsHook({"patches": {"attn1_patch": ["p"]}}, scope))
            model_options = {"transformer_options": {"patches": {"attn1_patch": ["own"]}}}
            assert group.hooks[0].add_hook_patches(patcher, model_options, TARGET, hooks.HookGroup())
            everywhere = scope == hooks.EnumHookScope.AllConditioning
            assert model_options["transformer_options"]["patches"]["attn1_patch"] == (["own", "p"] if everywhere else ["own"])
            own = hooks.create_transformer_options_from_hooks(patcher, group, {})
            assert own == ({} if everywhere else {"patches": {"attn1_patch": ["p"]}})


def test_conditioning_gets_hooks_masks_and_ranges():
    cond, group, more = [[torch.zeros(1), {"strength": 1}]], weight_hook(KEYS), weight_hook(KEYS)
    (combined,) = hooks.set_conds_props_and_combine([cond], [cond], mask=torch.ones(2, 2), hooks=group, timesteps_range=(0.1, 0.9))
    assert combined[0][1] == {"strength": 1} and combined[1][1]["hooks"] is group
    assert combined[1][1]["mask"].shape == (1, 2, 2) and combined[1][1]["set_area_to_bounds"] is False
    assert (combined[1][1]["start_percent"], combined[1][1]["end_percent"]) == (0.1, 0.9)
    first, second = hooks.set_hooks_for_conditioning([*combined[1:], *combined[1:]], more)
    assert len(first[1]["hooks"]) == 2 and first[1]["hooks"] is second[1]["hooks"]
    assert hooks.set_hooks_for_conditioning(combined[1:], more, append_hooks=False)[0][1]["hooks"] is more
    (default,) = hooks.set_default_conds_and_combine([cond], [cond], hooks=None)
    assert default[1][1] == {"strength": 1, "default": True} and "default" not in cond[0][1]
    assert hooks.set_conds_props([cond], 1.0, "default") == [cond]


def test_curves_between_strengths():
    weights = {
        method: [round(float(value), 4) for value in hooks.InterpolationMethod.get_weights(0.0, 1.0, 5, method)]
        for method in hooks.InterpolationMethod._LIST
    }
    assert weights == {
        "linear": [0, 0.25, 0.5, 0.75, 1],
        "ease_in": [0, 0.0625, 0.25, 0.5625, 1],
        "ease_out": [0, 0.4375, 0.75, 0.9375, 1],
        "ease_in_out": [0, 0.1464, 0.5, 0.8536, 1],
    }
    assert list(hooks.InterpolationMethod.get_weights(0.0, 1.0, 2, "linear", reverse=True)) == [1.0, 0.0]
    with pytest.raises(ValueError, match="zigzag"):
        hooks.InterpolationMethod.get_weights(0, 1, 2, "zigzag")
