"""Weights that hooks change take no more memory on the card than the same change as ordinary patches, but for one weight."""

from __future__ import annotations

import pathlib
from typing import Any

from engine import FP32, Engine, engine, unload

import comfy.hooks

OTHER = "starter-outlines.safetensors"


def peak_of(made: Engine, model: Any, positive: Any, negative: Any) -> int:
    unload(made)
    made.card.forget_peak()
    made.sample(model, positive, negative, steps=1)
    return made.card.peak_bytes


def test_hooks_over_all_weights(models: pathlib.Path) -> None:
    with engine(1, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        other = made.checkpoint(OTHER)[0]
        plain = peak_of(made, model, positive, negative)
        hook = comfy.hooks.create_hook_model_as_lora(comfy.hooks.get_patch_weights_from_model(other), None, 0.5, 0.0)
        hooked = peak_of(made, model, comfy.hooks.set_hooks_for_conditioning(positive, hook), negative)
        assert hooked < plain + model.model_size() * 1.15, "the replaced weights and the new ones, and what one weight takes to make"
