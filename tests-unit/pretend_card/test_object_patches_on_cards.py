"""Object patches that hold weights, on a card and streamed: the results of the plain CPU, and the base's weights untouched."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from engine import FP32, Engine, differences, engine, leftovers, on_host, tensors_in, unload
from pretend import seeded_apart

import comfy.ops

LAYER = "diffusion_model.time_embed.0"
ORDERS = {"patched, base, patched": "pbp", "base, patched, unloaded, base": "bpub", "patched, unloaded, base": "pub"}


class Wrapper(torch.nn.Module):
    """A network inside another module, as ``torch.compile`` wraps it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._orig_mod(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__["_modules"]["_orig_mod"]
        return inner if name == "_orig_mod" else getattr(inner, name)


def layer_like(old: Any, kind: type) -> torch.nn.Module:
    new = kind(old.in_features, old.out_features)
    generator = torch.Generator().manual_seed(1)
    new.weight = torch.nn.Parameter(torch.randn(old.weight.shape, generator=generator) * 0.05, requires_grad=False)
    new.bias = torch.nn.Parameter(torch.zeros(old.bias.shape), requires_grad=False)
    return new


def patched(made: Engine, model: Any, kind: str) -> Any:
    if kind == "network and LoRA":
        model = made.first("LoraLoaderModelOnly", model=model, lora_name="starter-plain.safetensors", strength_model=0.8)
    clone = model.clone()
    if kind.startswith("network"):
        clone.add_object_patch("diffusion_model", Wrapper(clone.get_model_object("diffusion_model")))
    elif kind == "weight":
        shape = clone.get_model_object(f"{LAYER}.weight").shape
        clone.add_object_patch(f"{LAYER}.weight", torch.nn.Parameter(torch.full(shape, 0.01), requires_grad=False))
    else:
        kinds = {"layer": comfy.ops.disable_weight_init.Linear, "plain layer": torch.nn.Linear}
        clone.add_object_patch(LAYER, layer_like(clone.get_model_object(LAYER), kinds[kind]))
    return clone


def run(made: Engine, kind: str, order: str) -> list[torch.Tensor]:
    model, _, _, positive, negative = made.parts()
    other, results = patched(made, model, kind), []
    for step in order:
        if step == "u":
            unload(made)
        else:
            results.append(on_host(made.sample(other if step == "p" else model, positive, negative, steps=1)).clone())
    return results


KINDS = ("layer", "plain layer", "weight", "network", "network and LoRA")
QUICK = {("layer", "patched, base, patched"), ("network and LoRA", "base, patched, unloaded, base")}
CASES = [
    pytest.param(kind, order, marks=() if (kind, order) in QUICK else pytest.mark.long) for kind in KINDS for order in ORDERS
]  # fmt: skip


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_object_patches_with_weights(models: pathlib.Path, kind: str, order: str) -> None:
    with engine(**FP32) as made:
        expected = tensors_in(run(made, kind, ORDERS[order]))
    for card in ({"card_mib": 4096}, {"card_mib": 12, "working_mib": 0.5}):
        with seeded_apart(1), engine(1, **card, **FP32) as made:
            made.parts()
            before = made.pristine()
            found = tensors_in(run(made, kind, ORDERS[order]))
            unload(made)
            assert differences(expected, found, 1e-4) == [], card
            assert all(torch.equal(before[place], weight) for place, weight in made.pristine().items()), f"{card}: the base changed"
            assert leftovers(made) == []
