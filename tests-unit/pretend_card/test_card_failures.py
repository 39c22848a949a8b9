"""Memory that runs out, and stops that are asked for, at any moment: the prompt ends clearly or is right, and the next one is right."""

from __future__ import annotations

import pathlib
import random
from collections import Counter
from typing import Any

import pytest
import torch
from engine import FP32, ON_CARD, Engine, engine, leftovers, on_host, unload

from comfy.interruption import InterruptProcessingException, interrupt_flag

SETTINGS: dict[str, tuple[dict[str, Any], str | None]] = {
    "a large card": (FP32, None),
    "12 MiB, a LoRA": ({"card_mib": 12, "working_mib": 0.5, **FP32}, "starter-plain.safetensors"),
    "text encoders on the card, a LoRA for them": (ON_CARD, "starter-text.safetensors"),
}
LARGE_BYTES = 40_000


def prompt(made: Engine, lora: str | None) -> list[torch.Tensor]:
    """Text, a picture, a picture encoded: every phase once."""
    model, clip, vae = made.checkpoint()
    if lora is not None:
        model, clip = made.node("LoraLoader", model=model, clip=clip, lora_name=lora, strength_model=0.8, strength_clip=0.7)
    samples = made.sample(model, made.text(clip, "a seven"), made.text(clip, "blurred"), steps=2)
    picture = made.first("VAEDecode", samples={"samples": samples}, vae=vae)
    encoded = made.first("VAEEncode", pixels=made.picture(), vae=vae)["samples"]
    return [on_host(tensor).clone() for tensor in (samples, picture, encoded)]


def are_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(first, second) for first, second in zip(one, other))


class Trials:
    """Lets something happen at chosen allocations of a prompt, and looks at the prompt and at the next one."""

    def __init__(self, made: Engine, lora: str | None) -> None:
        self.made, self.lora = made, lora
        self.expected = prompt(made, lora)
        start = made.card.serial
        unload(made)
        prompt(made, lora)
        self.allocations = made.card.serial - start
        unload(made)
        self.weights = made.pristine()
        self.outcomes: Counter[str] = Counter()

    def at(self, position: int, happen: Any) -> None:
        """Run a prompt in which ``happen(size)`` decides from the allocation *position* on, then one without."""
        card = self.made.card
        start = card.serial
        card.refuses = lambda size, serial: serial >= start + position and happen(size)
        try:
            outcome = "right" if are_equal(prompt(self.made, self.lora), self.expected) else "other"
        except torch.OutOfMemoryError:
            outcome = "out of memory"
        except InterruptProcessingException:
            outcome = "stopped"
        finally:
            card.refuses = None
            interrupt_flag.set(False)
        self.outcomes[outcome] += 1
        assert are_equal(prompt(self.made, self.lora), self.expected), f"the prompt after {outcome} at {position} is wrong"
        unload(self.made)
        assert leftovers(self.made) == []
        now = self.made.pristine()
        assert all(torch.equal(weight, now[place]) for place, weight in self.weights.items())


def once() -> Any:
    happened: list[int] = []

    def refuse(size: int) -> bool:
        due = not happened
        happened.append(size)
        return due

    return refuse


def for_large_ones() -> Any:
    happened: list[int] = []

    def refuse(size: int) -> bool:
        due = size > LARGE_BYTES and len(happened) < 3
        happened.extend([size] if due else [])
        return due

    return refuse


def stop() -> Any:
    def ask(size: int) -> bool:
        interrupt_flag.set(True)
        return False

    return ask


KINDS = {"once": once, "large ones": for_large_ones, "stopped": stop}


@pytest.mark.parametrize("kind", ["once", "stopped"])
def test_at_a_moment(models: pathlib.Path, kind: str) -> None:
    with engine(1, **FP32) as made:
        trials = Trials(made, None)
        trials.at(int(trials.allocations * 0.35), KINDS[kind]())  # in the first step
        assert trials.outcomes == {"out of memory" if kind == "once" else "stopped": 1}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_at_any_moment(models: pathlib.Path, setting: str, kind: str) -> None:
    flags, lora = SETTINGS[setting]
    chance = random.Random(7)
    with engine(1, **flags) as made:
        trials = Trials(made, lora)
        for _ in range(30):
            trials.at(chance.randint(1, trials.allocations), KINDS[kind]())
        print(setting, kind, dict(trials.outcomes))
