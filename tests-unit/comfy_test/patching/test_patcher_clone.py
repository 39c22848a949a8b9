"""Clones: cheap, independent, and sharing only what is loaded."""

import gc
import time
import weakref

import pytest
import torch
from residency_models import HOST, Layers, management, patcher_of

from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher, create_model_options_clone, set_model_options_patch_replace
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy.patching.patch_table import PatchTable


@pytest.fixture
def base():
    with management():
        yield patcher_of(Layers())


def test_patches_of_a_clone_stay_with_it(base):
    base.add_patches({"first.weight": (torch.ones(64, 32),)})
    clone = base.clone()
    assert clone.patches_uuid == base.patches_uuid and clone.parent is base and base.is_clone(clone) and clone.is_clone(base)
    clone.add_patches({"first.weight": (torch.ones(64, 32),), "last.bias": (torch.ones(32),)})
    assert clone.patches_uuid != base.patches_uuid
    assert (len(base.patches["first.weight"]), len(clone.patches["first.weight"])) == (1, 2)
    assert "last.bias" not in base.patches
    base.patches["first.weight"].append("by hand")
    assert len(clone.patches["first.weight"]) == 2
    assert not base.is_clone(patcher_of(Layers()))


def test_a_list_changed_by_hand_in_a_clone_does_not_leak(base):
    base.add_patches({"first.weight": (torch.ones(64, 32),)})
    clone = base.clone()
    twin = clone.clone()
    clone.patches["first.weight"].append("by hand")
    assert [len(patcher.patches.read("first.weight")) for patcher in (base, clone, twin)] == [1, 2, 1]


def test_patch_lists_are_shared_until_they_are_asked_for():
    table = PatchTable({str(index): [(1.0, (index,), 1.0, None, None)] for index in range(1000)})
    twin = table.fork()
    assert all(table.read(key) is twin.read(key) for key in table)
    twin.add("5", (2.0, (0,), 1.0, None, None))
    assert table.read("5") is not twin.read("5") and table.read("6") is twin.read("6")
    assert len(table["5"]) == 1 and len(twin["5"]) == 2


def test_cloning_copies_no_tensor_and_costs_little(base):
    base.add_patches({name: (torch.zeros_like(parameter),) for name, parameter in base.model.named_parameters()})
    for index in range(20_000):
        base.patches.put(f"weight {index}", [(1.0, (torch.zeros(1),), 1.0, None, None)])
    clone = base.clone()
    assert all(clone.patches.read(key) is base.patches.read(key) for key in base.patches)
    few = patcher_of(Layers())
    assert fastest(base.clone) < fastest(few.clone) * 2 + 0.0005, "20,000 patches cost a clone more than half a millisecond"


def fastest(action, tries=5):
    times = []
    for _ in range(tries):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def test_options_of_a_clone_stay_with_it(base):
    replaced, patch = object(), object()
    base.set_model_attn1_replace(replaced, "input", 1)
    base.set_model_attn2_patch(patch)
    clone = base.clone()
    clone.set_model_attn1_replace(object(), "input", 1, 0)
    clone.set_model_attn2_patch(object())
    clone.model_options["transformer_options"]["mine"] = 1
    options = base.model_options["transformer_options"]
    assert options["patches_replace"]["attn1"] == {("input", 1): replaced} and options["patches"]["attn2_patch"] == [patch]
    assert "mine" not in options
    assert set(clone.model_options["transformer_options"]["patches_replace"]["attn1"]) == {("input", 1), ("input", 1, 0)}


def test_every_option_setter_lands_where_the_sampler_looks(base):
    function = object()
    for setter, name in {
        "attn1_patch": "attn1_patch",
        "attn2_patch": "attn2_patch",
        "attn1_output_patch": "attn1_output_patch",
        "attn2_output_patch": "attn2_output_patch",
        "input_block_patch": "input_block_patch",
        "input_block_patch_after_skip": "input_block_patch_after_skip",
        "output_block_patch": "output_block_patch",
        "emb_patch": "emb_patch",
        "forward_timestep_embed_patch": "forward_timestep_embed_patch",
        "double_block_patch": "double_block",
        "post_input_patch": "post_input",
        "noise_refiner_patch": "noise_refiner",
        "middle_block_after_patch": "middle_block_after_patch",
    }.items():
        getattr(base, f"set_model_{setter}")(function)
        assert base.model_options["transformer_options"]["patches"][name] == [function]
    for setter, name in {
        "unet_function_wrapper": "model_function_wrapper",
        "denoise_mask_function": "denoise_mask_function",
        "sampler_calc_cond_batch_function": "sampler_calc_cond_batch_function",
    }.items():
        getattr(base, f"set_model_{setter}")(function)
        assert base.model_options[name] is function
    base.set_model_sampler_cfg_function(lambda cond, uncond, scale: (cond, uncond, scale), disable_cfg1_optimization=True)
    assert base.model_options["sampler_cfg_function"]({"cond": 1, "uncond": 2, "cond_scale": 3}) == (1, 2, 3)
    assert base.model_options["disable_cfg1_optimization"] is True
    whole = lambda args: args  # noqa: E731
    base.set_model_sampler_cfg_function(whole)
    assert base.model_options["sampler_cfg_function"] is whole
    for name in ("pre", "post"):
        for _ in range(2):
            getattr(base, f"set_model_sampler_{name}_cfg_function")(function)
        assert base.model_options[f"sampler_{name}_cfg_function"] == [function, function]
    base.set_model_rope_options(1, 2, 3, 4, 5, 6)
    assert base.model_options["transformer_options"]["rope_options"] == {
        "scale_x": 1,
        "shift_x": 2,
        "scale_y": 3,
        "shift_y": 4,
        "scale_t": 5,
        "shift_t": 6,
    }


def test_a_replacement_does_not_change_options_that_share_it():
    options = {"transformer_options": {"patches_replace": {"attn1": {("input", 1): "old"}}}}
    copy = dict(options)
    set_model_options_patch_replace(copy, "new", "attn1", "input", 1)
    assert options["transformer_options"]["patches_replace"]["attn1"] == {("input", 1): "old"}
    assert create_model_options_clone(copy)["transformer_options"] is not copy["transformer_options"]


def test_patch_objects_are_moved_and_called(base):
    class Patch:
        def __init__(self):
            self.calls = []

        def to(self, device):
            self.calls.append(device)
            return self

        def cleanup(self, **arguments):
            self.calls.append(("cleanup", arguments))

    patches = [Patch() for _ in range(3)]
    base.set_model_attn1_patch(patches[0])
    base.set_model_attn2_replace(patches[1], "middle", 0)
    base.set_model_unet_function_wrapper(patches[2])
    base.set_model_attn1_patch(lambda: None)
    base.model_patches_to(HOST)
    base.model_patches_call_function("cleanup", {"reason": 1})
    assert all(patch.calls == [HOST, ("cleanup", {"reason": 1})] for patch in patches)


def test_attachments_callbacks_and_wrappers_travel_with_clones(base):
    class Attached:
        def on_model_patcher_clone(self):
            return "cloned"

    seen = []
    base.set_attachments("a", Attached())
    base.set_attachments("b", 7)
    base.add_callback(CallbacksMP.ON_CLONE, lambda original, twin: seen.append((original, twin)))
    base.add_callback_with_key(CallbacksMP.ON_LOAD, "k", lambda *arguments: seen.append(arguments[1:]))
    base.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "k", len)
    helper = patcher_of(Layers(seed=1))
    base.set_additional_models("helper", [helper])
    clone = base.clone()
    assert seen == [(base, clone)]
    assert (clone.get_attachment("a"), clone.get_attachment("b"), clone.get_attachment("c")) == ("cloned", 7, None)
    assert clone.get_additional_models()[0].parent is helper
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, "k")
    assert base.get_all_wrappers(WrappersMP.APPLY_MODEL) == [len] and clone.get_all_wrappers(WrappersMP.APPLY_MODEL) == []
    clone.patch_model(HOST)
    assert seen[-1] == (HOST, 0, False, True)


def test_nested_additional_models_are_found_once_even_in_a_circle(base):
    one, two = patcher_of(Layers(seed=1)), patcher_of(Layers(seed=2))
    base.set_additional_models("x", [one, two])
    one.set_additional_models("x", [two])
    two.set_additional_models("x", [one, base])
    assert base.get_nested_additional_models() == [one, two, base]


def test_injections_are_in_only_while_the_patcher_is_loaded(base):
    with management() as manager:
        state = []
        clone = base.clone()
        clone.set_injections("x", [PatcherInjection(lambda patcher: state.append("in"), lambda patcher: state.remove("in"))])
        manager.load_models_gpu([clone])
        assert state == ["in"] and clone.is_injected
        clone.model_state_dict()
        assert state == ["in"]
        manager.load_models_gpu([base])
        assert state == [] and not clone.is_injected
        manager.load_models_gpu([clone])
        del clone
        gc.collect()
        assert state == [], "a dropped clone left its injection in the module"


def test_a_dropped_patcher_frees_its_module_without_the_collector(base):
    patcher = patcher_of(Layers(seed=4))
    clone = patcher.clone()
    clone.add_patches({"first.weight": (torch.ones(64, 32),)})
    clone.patch_model(HOST)
    module = weakref.ref(patcher.model)
    gc.disable()
    try:
        del patcher, clone
        assert module() is None
    finally:
        gc.enable()


def test_loading_again_gives_a_clone_with_weights_of_its_own(base):
    with pytest.raises(RuntimeError, match="cached_patcher_init"):
        base.clone(force_deepcopy=True)
    base.cached_patcher_init = (lambda seed: (None, ModelPatcher(Layers(seed=seed), HOST, HOST)), (0,), 1)
    base.add_patches({"first.weight": (torch.ones(64, 32),)})
    twin = base.deepclone_multigpu(torch.device("cpu", 0))
    assert not twin.is_clone(base) and twin.load_device == torch.device("cpu", 0) and twin.patches.keys() == base.patches.keys()
    assert twin.clone_has_same_weights(base, allow_multigpu=True) and not twin.clone_has_same_weights(base)


def test_copies_on_other_devices_follow_the_patcher(base):
    def loadable(seed):
        patcher = ModelPatcher(Layers(seed=seed), HOST, HOST)
        patcher.cached_patcher_init = (lambda seed: ModelPatcher(Layers(seed=seed), HOST, HOST), (seed,))
        return patcher

    patcher, helper, late = loadable(0), loadable(1), loadable(2)
    patcher.match_multigpu_clones()
    assert patcher.get_additional_models_with_key("multigpu") == []
    patcher.set_additional_models("x", [helper])
    other = torch.device("cpu", 1)
    copy = patcher.deepclone_multigpu(other)
    helper_there = copy.get_additional_models_with_key("x")[0]
    patcher.set_additional_models("multigpu", [copy])
    patcher.add_patches({"first.weight": (torch.ones(64, 32),)})
    patcher.set_additional_models("y", [late])
    seen = []
    patcher.add_callback(CallbacksMP.ON_MATCH_MULTIGPU_CLONES, lambda own, twin: seen.append((own, twin)))
    patcher.match_multigpu_clones()
    (twin,) = patcher.get_additional_models_with_key("multigpu")
    assert seen == [(patcher, twin)] and twin.model is copy.model and twin.load_device == other and twin.patches.keys() == {"first.weight"}
    assert twin.get_additional_models_with_key("x") == [helper_there] and twin.get_additional_models_with_key("multigpu") == []
    (late_there,) = twin.get_additional_models_with_key("y")
    assert late_there.model is not late.model and late_there.load_device == other
    patcher.remove_additional_models("x")
    patcher.match_multigpu_clones()
    (twin,) = patcher.get_additional_models_with_key("multigpu")
    assert twin.get_additional_models() == [late_there]


def test_attention_may_be_computed_by_another_function(base):
    def constant(q, k, v, heads, **kwargs):
        return torch.full_like(q, heads)

    constant.container_function = constant
    clone = base.clone()
    clone.set_model_optimized_attention(constant)
    options = clone.model_options["transformer_options"]
    q = torch.zeros(1, 2, 4)
    assert torch.equal(attention_pytorch(q, q, q, heads=2, transformer_options=options), torch.full_like(q, 2))
    assert options["optimized_attention_override"].container_function is constant
    assert "optimized_attention_override" not in base.model_options["transformer_options"]
