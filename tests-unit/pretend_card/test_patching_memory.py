"""A weight that is patched at a call takes no more of the card than what is left free for that."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from pretend import pretend_cards
from small_files import KINDS, Adapters

import comfy.lora
import comfy.model_management as management
from comfy.patching.low_vram import patched_value

COPIES = 3.1  # the weight, a change and the result, or what is made in between; a rank of 4 is a little more
MORE = {"dora": 4.1}  # norms over columns are taken of a turned copy
KEY = "layer.weight"


def copies_for(patches: list[Any], weight: torch.Tensor, originals: dict[str, Any] | None = None) -> float:
    """The most of *weight*'s size that patching it on a card takes beside it."""
    exact = patch.object(management, "lora_compute_dtype", lambda device: torch.float32)
    with exact, torch.inference_mode(), pretend_cards() as machine:
        card = machine.cards[0]
        there = weight.to(card.device)
        before = card.used_bytes()
        card.forget_peak()
        patched_value(patches, there, KEY, card.device, torch.float32, original_weights=originals)
        return (card.peak_bytes - before) / weight.nbytes


@pytest.mark.parametrize("shape", [(256, 256), (128, 64, 3, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_change(kind: str, shape: tuple[int, ...]) -> None:
    tensors = KINDS[kind](Adapters(), "layer", shape)
    if not tensors:
        pytest.skip("there is no such change of this shape")
    change = comfy.lora.load_lora(tensors, {"layer": KEY})[KEY]
    assert copies_for([(0.8, change, 1.0, None, None)], torch.ones(shape)) <= MORE.get(kind, COPIES)


def test_another_models_weight() -> None:
    other, own = torch.full((256, 256), 3.0), torch.ones(256, 256)
    change = (0.5, ("model_as_lora", (other,)), 1.0, None, None)
    assert copies_for([change], own, {KEY: [(own,)]}) <= 2.3
    made = patched_value([change], own, KEY, torch.device("cpu"), torch.float32, original_weights={KEY: [(own,)]})
    assert torch.equal(made, torch.full_like(own, 2.0))
