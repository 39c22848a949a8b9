"""Changes of a LoRA file are held against their weights by shapes, once for all that have the same."""

import logging

import pytest
import torch

import comfy.lora
from comfy.loading.lora_fit import fitting_changes, outline

OUT, INNER = 6, 4


class Layers(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(INNER, OUT) for _ in range(count)])


def kind_of_file(kind, name, rank=2):
    """The tensors of one change that fits, for each kind with a check of its own."""
    rows, columns = torch.ones(OUT, rank), torch.ones(rank, INNER)
    return {
        "lora": {f"{name}.lora_up.weight": rows, f"{name}.lora_down.weight": columns},
        "loha": {f"{name}.hada_w{number}_{part}": value for number in (1, 2) for part, value in (("a", rows), ("b", columns))},
        "lokr": {f"{name}.lokr_w1": torch.ones(2, 2), f"{name}.lokr_w2": torch.ones(OUT // 2, INNER // 2)},
        "oft": {f"{name}.oft_blocks": torch.ones(3, 2, 2)},
        "diff": {f"{name}.diff": torch.ones(OUT, INNER)},
    }[kind]


def patches_of(kind, count, damaged=()):
    file = {}
    for number in range(count):
        tensors = kind_of_file(kind, f"x{number}")
        if number in damaged:
            tensors = {key: torch.ones(*value.shape[:-1], value.shape[-1] + 1) for key, value in tensors.items()}
        file |= tensors
    return comfy.lora.load_lora(file, {f"x{number}": f"layers.{number}.weight" for number in range(count)})


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "oft", "diff"])
def test_changes_that_fit_stay_in_and_the_others_are_named(kind, caplog):
    kept = fitting_changes(patches_of(kind, 5, damaged={1, 4}), [Layers(5)], "loras/odd.safetensors")
    assert sorted(kept) == ["layers.0.weight", "layers.2.weight", "layers.3.weight"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "loras/odd.safetensors" in record.message and "2 of its changes" in record.message and "layers.1.weight" in record.message


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "oft", "diff"])
def test_changes_of_the_same_shapes_are_looked_at_once(kind, monkeypatch):
    asked, misfit = [], comfy.lora.misfit
    monkeypatch.setattr(comfy.lora, "misfit", lambda patch, shape: asked.append(shape) or misfit(patch, shape))
    assert len(fitting_changes(patches_of(kind, 50), [Layers(50)], "a file")) == 50
    assert len(asked) == 1


def test_a_slice_counts_with_its_own_length_and_unknown_weights_stay_in(caplog):
    (patch,) = patches_of("lora", 1).values()
    tall = Layers(1)
    tall.layers[0] = torch.nn.Linear(INNER, 3 * OUT)
    within, beyond = ("layers.0.weight", (0, OUT, OUT)), ("layers.0.weight", (0, 0, OUT + 1))
    assert list(fitting_changes({within: patch, beyond: patch, "elsewhere": patch}, [tall], "a file")) == [within, "elsewhere"]


def test_outlines_differ_by_shape_dtype_and_number():
    tensor = torch.ones(2, 3)
    assert outline((tensor, None, 1.5, [2, 3])) == outline((torch.zeros(2, 3), None, 1.5, [2, 3]))
    different = [tensor.T, tensor.half(), 1.5, 2.5, None, "x", [tensor], {"pad_weight": True}, {"pad_weight": False}]
    assert len({outline(value) for value in different}) == len(different)
