"""The engine on pretend cards against the plain CPU, case by case, under every memory flag and card size."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
import torch
from cases import CASES
from engine import FP32, ON_CARD, differences, engine, leftovers, tensors_in, unload
from pretend import seeded_apart

import comfy.model_management as management

FLAGS = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A card, flags for both sides, flags for the card alone, and how far results may be apart (a share of the largest value)."""

    both: FLAGS = field(default_factory=lambda: FP32)
    card: FLAGS = field(default_factory=dict)
    tolerance: float = 3e-4
    stays: bool = False


SMALL = {"working_mib": 3}  # a LoHa that is applied at each call takes several copies of the largest weight
SETTINGS = {
    "a large card": Setting(),
    "text encoders on the card": Setting(ON_CARD, tolerance=2e-3),
    "20 MiB": Setting(card={"card_mib": 20, **SMALL}),
    "12 MiB": Setting(card={"card_mib": 12, **SMALL}),
    "8 MiB": Setting(card={"card_mib": 8, **SMALL}),
    "12 MiB, nothing page-locked": Setting(card={"card_mib": 12, "disable_pinned_memory": True, **SMALL}),
    "lowvram": Setting(card={"lowvram": True}),
    "novram": Setting(card={"novram": True}),
    "highvram": Setting(card={"highvram": True}),
    "gpu-only": Setting(ON_CARD, {"gpu_only": True}, 2e-3),
    "cpu-vae": Setting(card={"cpu_vae": True}),
    "no smart memory": Setting(card={"disable_smart_memory": True}),
    "deterministic": Setting(card={"deterministic": True}),
}


@functools.cache
def expected(name: str, both: tuple[tuple[str, bool], ...]) -> Any:
    """What the plain CPU makes of a case; once for all settings."""
    with engine(**dict(both)) as made:
        return tensors_in(CASES[name].run(made))


def check(name: str, setting: Setting) -> None:
    """The case makes on the card what it makes on the CPU, changes no pristine weight, and leaves nothing behind."""
    extra = CASES[name].extra_mib if "working_mib" in setting.card else 0
    card = {flag: value + extra if flag in ("card_mib", "working_mib") else value for flag, value in setting.card.items()}
    wanted = expected(name, tuple(setting.both.items()))
    exact = patch.object(management, "lora_compute_dtype", lambda device: torch.float32)  # cards patch in half precision
    with exact, seeded_apart(CASES[name].apart), engine(1, **setting.both, **card) as made:
        found = tensors_in(CASES[name].run(made))
        assert differences(wanted, found, setting.tolerance) == []
        before = made.pristine()
        unload(made)
        assert all(torch.equal(before[place], weight) for place, weight in made.pristine().items())
        if not {"highvram", "gpu_only"}.isdisjoint(setting.card):  # there the card is where weights are kept
            del before
            made.forget()
            unload(made)
        assert leftovers(made) == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.quick])
def test_a_large_card(models: pathlib.Path, name: str) -> None:
    check(name, SETTINGS["a large card"])


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("12 MiB", "two LoRAs, one, two, none"),
        ("novram", "LoRA hooks"),
        ("gpu-only", "picture to picture"),
        ("20 MiB", "hook of another model's weights"),
        ("12 MiB", "two ControlNets of SDXL"),
        ("12 MiB", "LoRA dora"),
        ("12 MiB", "LoRA boft"),
        pytest.param("8 MiB", "ControlNet of SD 1.5", marks=pytest.mark.long),
    ],
)
def test_memory_flags(models: pathlib.Path, setting: str, name: str) -> None:
    check(name, SETTINGS[setting])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", SETTINGS)
def test_everything(models: pathlib.Path, setting: str) -> None:
    faults = {}
    for name in CASES:
        try:
            check(name, SETTINGS[setting])
        except (AssertionError, RuntimeError, TypeError) as error:
            faults[name] = f"{type(error).__name__}: {error}"[:400]
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())
