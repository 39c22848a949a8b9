"""Nodes for changes that hold for some conditioning only."""

from types import SimpleNamespace

import pytest
import torch

import comfy.hooks
import comfy.sd
import folder_paths
from comfy.loading import lora_files
from comfy_extras import hook_conditioning_nodes, hook_keyframe_nodes, nodes_hooks


@pytest.fixture
def files(monkeypatch):
    """Every file is there; returns the paths that were read."""
    read = []
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: f"{folder}/{name}")

    def load(path, before):
        if before != {"tensors": path}:
            read.append(path)
        return {"tensors": path}

    monkeypatch.setattr(lora_files, "load_lora_file", load)
    return read


def hook(strength=1.0):
    return comfy.hooks.create_hook_lora({"a": torch.zeros(1)}, strength, strength)


def test_a_lora_becomes_a_hook_and_is_read_once(files):
    node = nodes_hooks.CreateHookLora()
    (first,) = node.create_hook("a", 0.5, 0.25)
    (both,) = node.create_hook("a", 1.0, 1.0, prev_hooks=first)
    assert len(first) == 1 and len(both) == 2 and files == ["loras/a"]
    (made,) = first.get_type(comfy.hooks.EnumHookType.Weight)
    assert (made.strength_model, made.strength_clip, made.weights) == (0.5, 0.25, {"tensors": "loras/a"})
    assert node.create_hook("a", 0, 0, prev_hooks=first) == (first,)
    (only,) = nodes_hooks.CreateHookLoraModelOnly().create_hook_model_only("b", 2.0)
    assert only.get_type(comfy.hooks.EnumHookType.Weight)[0].strength_clip == 0 and files[-1] == "loras/b"


def test_a_checkpoint_becomes_a_hook_and_is_read_once(files, monkeypatch):
    loads = []
    model = SimpleNamespace(model_state_dict=lambda: {"w": torch.ones(1), "model_sampling.sigmas": torch.ones(1)})
    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", lambda path, **_: loads.append(path) or (model, None, None, None))
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda folder: [folder])
    node = nodes_hooks.CreateHookModelAsLora()
    (first,) = node.create_hook("m", 1.0, 0.5)
    node.create_hook("m", 1.0, 0.5, first)
    (made,) = first.get_type(comfy.hooks.EnumHookType.Weight)
    assert loads == ["checkpoints/m"] and list(made.weights) == ["w"] and made.weights_clip is None
    (only,) = nodes_hooks.CreateHookModelAsLoraModelOnly().create_hook_model_only("m", 1.0)
    assert only.get_type(comfy.hooks.EnumHookType.Weight)[0].strength_clip == 0


def test_keyframes_in_a_row_and_along_a_curve(caplog):
    (one,) = nodes_hooks.CreateHookKeyframe().create_hook_keyframe(0.5, 0.25)
    with caplog.at_level("INFO"):
        (curve,) = nodes_hooks.CreateHookKeyframesInterpolated().create_hook_keyframes(0.0, 1.0, "ease_in", 0.5, 1.0, 3, True, one)
    found = [(frame.start_percent, float(frame.strength), frame.guarantee_steps) for frame in curve.keyframes]
    assert found == [(0.25, 0.5, 1), (0.5, 0.0, 1), (0.75, 0.25, 0), (1.0, 1.0, 0)]
    assert len(caplog.records) == 3 and len(one.keyframes) == 1
    node = nodes_hooks.CreateHookKeyframesFromFloats()
    (listed,) = node.create_hook_keyframes([1.0, 0.0], 0.0, 1.0)
    assert [(frame.start_percent, frame.strength) for frame in listed.keyframes] == [(0.0, 1.0), (1.0, 0.0)]
    assert len(node.create_hook_keyframes(0.5, 0.0, 1.0)[0].keyframes) == 1
    with pytest.raises(TypeError, match="not NoneType"):
        node.create_hook_keyframes(None, 0.0, 1.0)
    assert hook_keyframe_nodes.INTERPOLATIONS == comfy.hooks.InterpolationMethod._LIST


def test_hooks_get_keyframes_without_changing_those_given():
    group = hook()
    (keyframes,) = nodes_hooks.CreateHookKeyframe().create_hook_keyframe(0.5, 0.0)
    (timed,) = nodes_hooks.SetHookKeyframes().set_hook_keyframes(group, keyframes)
    assert timed is not group and timed.get_type(comfy.hooks.EnumHookType.Weight)[0].strength == 0.5
    assert group.get_type(comfy.hooks.EnumHookType.Weight)[0].strength == 1.0
    assert nodes_hooks.SetHookKeyframes().set_hook_keyframes(group) == (group,)


def test_hooks_are_combined():
    first, second = hook(), hook()
    assert len(nodes_hooks.CombineHooks().combine_hooks(first, second)[0]) == 2
    assert len(nodes_hooks.CombineHooksEight().combine_hooks(hooks_A=first, hooks_H=second)[0]) == 2
    assert list(nodes_hooks.CombineHooksFour.INPUT_TYPES()["optional"]) == ["hooks_A", "hooks_B", "hooks_C", "hooks_D"]


def test_a_text_encoder_gets_hooks_of_its_own():
    registered = []

    class Clip:
        def __init__(self):
            self.patcher = SimpleNamespace(register_all_hook_patches=lambda hooks, target: registered.append((hooks, target)))

        def clone(self):
            return Clip()

    clip, group = Clip(), hook()
    node = nodes_hooks.SetClipHooks()
    (changed,) = node.apply_hooks(clip, schedule_clip=False, apply_to_conds=True, hooks=group)
    assert changed is not clip and changed.apply_hooks_to_conds is group and changed.use_clip_schedule is False
    assert changed.patcher.forced_hooks is not group and len(changed.patcher.forced_hooks) == 1
    assert registered == [(group, {"target": comfy.hooks.EnumWeightTarget.Clip})]
    assert node.apply_hooks(clip, True, True) == (clip,)


def test_conditioning_gets_hooks_masks_and_ranges():
    group, mask = hook(), torch.ones(2, 2)
    cond, other = [["c", {}]], [["o", {}]]
    (made,) = hook_conditioning_nodes.ConditioningSetProperties().set_properties(cond, 0.5, "mask bounds", mask, group, (0.2, 0.8))
    values = made[0][1]
    assert (values["hooks"], values["mask_strength"], values["set_area_to_bounds"]) == (group, 0.5, True)
    assert (values["start_percent"], values["end_percent"], values["mask"].shape) == (0.2, 0.8, (1, 2, 2))
    (combined,) = nodes_hooks.ConditioningSetPropertiesAndCombine().set_properties(cond, other, 1.0, "default", hooks=group)
    assert [pair[0] for pair in combined] == ["c", "o"] and "hooks" not in combined[0][1] and combined[1][1]["hooks"] is group
    positive, negative = nodes_hooks.PairConditioningSetProperties().set_properties(cond, other, 1.0, "default", hooks=group)
    assert positive[0][1]["hooks"] is negative[0][1]["hooks"] is group
    pair = nodes_hooks.PairConditioningSetPropertiesAndCombine().set_properties(cond, other, other, cond, 1.0, "default")
    assert [[one[0] for one in side] for side in pair] == [["c", "o"], ["o", "c"]]
    assert nodes_hooks.PairConditioningCombine().combine(cond, other, other, cond) == pair
    (default,) = nodes_hooks.ConditioningSetDefaultAndCombine().set_default_and_combine(cond, other, group)
    assert default[1][1] == {"hooks": group, "default": True}
    sides = nodes_hooks.PairConditioningSetDefaultAndCombine().set_default_and_combine(cond, other, other, cond)
    assert all(side[1][1] == {"default": True} for side in sides)
    assert nodes_hooks.SetModelHooksOnCond().attach_hook(cond, group)[0][0][1]["hooks"] is group


def test_ranges_and_names():
    assert nodes_hooks.ConditioningTimestepsRange().create_range(0.2, 0.6) == ((0.2, 0.6), (0.0, 0.2), (0.6, 1.0))
    assert len(nodes_hooks.NODE_CLASS_MAPPINGS) == len(nodes_hooks.NODE_DISPLAY_NAME_MAPPINGS) == 20
    for name, node in nodes_hooks.NODE_CLASS_MAPPINGS.items():
        if "Model" not in name and "Lora" not in name:
            assert set(node.INPUT_TYPES()) <= {"required", "optional"} and callable(getattr(node, node.FUNCTION))
