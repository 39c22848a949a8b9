"""The list of layers that packs read which spread a model over devices."""

import torch

import comfy.model_patcher
import comfy.ops
from comfy.patching.load_list import SMALL_LAYER_BYTES, load_list, low_vram_patch_estimate_vram


def patcher():
    layers = comfy.ops.disable_weight_init
    model = torch.nn.Sequential(layers.Linear(4, 2), torch.nn.ReLU(), torch.nn.Sequential(layers.Linear(256, 128, bias=False)))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def test_every_layer_with_its_bytes_name_module_and_parameters():
    one = patcher()
    rows = one._load_list()
    assert [row[:3] for row in rows] == [(40, 40, "0"), (131072, 131072, "2.0")]
    assert rows[0][3] is one.model[0] and rows[0][4] == {"weight": one.model[0].weight, "bias": one.model[0].bias}
    assert comfy.model_patcher.ModelPatcherDynamic._load_list is load_list


def test_patches_add_what_patching_takes():
    one = patcher()
    one.add_patches({"0.weight": (torch.ones(2, 4),)}, 1.0)
    assert low_vram_patch_estimate_vram(one.model, "0.weight") == 2 * 8 * 4
    assert load_list(one)[0][:2] == (40 + 64, 40)


def test_for_dynamic_loading_small_layers_sort_first_then_large_ones_by_size():
    rows = sorted(load_list(patcher(), for_dynamic=True), key=lambda row: row[:2])
    assert [(row[0], row[1], row[3]) for row in rows] == [(False, -40, "0"), (True, -131072, "2.0")]
    assert SMALL_LAYER_BYTES == 65536
