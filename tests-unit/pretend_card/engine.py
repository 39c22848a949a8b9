"""The engine of this project on pretend cards, or on the plain CPU, node by node."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from pretend import CardTensor, Machine, pretend_cards

import comfy.model_management as management
import comfy.residency.devices as devices
import comfy.utils
import nodes
from comfy.cli_args import args
from comfy.residency.process_models import ProcessModels

MIB = 1 << 20
STARTER = "starter-digits.safetensors"
FP32 = {"force_fp32": True, "fp32_text_enc": True, "fp32_vae": True}
ON_CARD = {"fp32_unet": True, "fp32_text_enc": True, "fp32_vae": True}  # text encoders on the card, too
Tensors = dict[str, torch.Tensor]
# What torch raises when a card is out of memory: its allocator, and a call of the runtime.
NO_MEMORY = [torch.OutOfMemoryError("CUDA out of memory."), torch.AcceleratorError("CUDA error: out of memory")]


def no_memory(error: RuntimeError) -> bool:
    """Raises *error*, for ``Card.refuses``."""
    raise type(error)(*error.args)


class Engine:
    """Calls node classes as a prompt would. *machine* is None on the plain CPU."""

    def __init__(self, machine: Machine | None) -> None:
        self.machine = machine
        self._loaded: dict[str, Any] = {}

    @property
    def card(self) -> Any:
        """The first card."""
        assert self.machine is not None
        return self.machine.cards[0]

    def node(self, name: str, **inputs: Any) -> Any:
        """All results of the node class *name*."""
        cls = nodes.NODE_CLASS_MAPPINGS[name]
        made = cls.execute(**inputs) if hasattr(cls, "define_schema") else getattr(cls(), cls.FUNCTION)(**inputs)
        if isinstance(made, dict):
            return made.get("result", ())
        return tuple(made.args) if hasattr(made, "args") else tuple(made)

    def first(self, name: str, **inputs: Any) -> Any:
        """The first result of the node class *name*."""
        return self.node(name, **inputs)[0]

    def checkpoint(self, name: str = STARTER) -> Any:
        """(model, clip, vae) of a checkpoint, loaded once."""
        if name not in self._loaded:
            self._loaded[name] = self.node("CheckpointLoaderSimple", ckpt_name=name)
        return self._loaded[name]

    def forget(self) -> None:
        """Let go of what was loaded."""
        self._loaded.clear()
        gc.collect()

    def text(self, clip: Any, words: str) -> Any:
        return self.first("CLIPTextEncode", clip=clip, text=words)

    def parts(self, name: str = STARTER) -> Any:
        """(model, clip, vae, positive, negative)."""
        model, clip, vae = self.checkpoint(name)
        return model, clip, vae, self.text(clip, "a handwritten seven"), self.text(clip, "blurred")

    def latent(self, side: int = 64, batch: int = 1) -> Any:
        return self.first("EmptyLatentImage", width=side, height=side, batch_size=batch)

    def sample(self, model: Any, positive: Any, negative: Any, latent: Any = None, **changed: Any) -> torch.Tensor:
        """What KSampler makes: by default three steps of euler."""
        settings = {"seed": 1, "steps": 3, "cfg": 4.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0} | changed
        latent = self.latent() if latent is None else latent
        return self.first("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **settings)["samples"]

    def picture(self, side: int = 64, batch: int = 1) -> torch.Tensor:
        """Random pictures where the intermediate device is."""
        pixels = torch.rand(batch, side, side, 3, generator=torch.Generator().manual_seed(5))
        return pixels.to(management.intermediate_device())

    def mask(self, side: int = 64) -> torch.Tensor:
        mask = torch.zeros(1, side, side)
        mask[:, side // 4 : side * 3 // 4, : side // 2] = 1.0
        return mask.to(management.intermediate_device())

    def pristine(self) -> dict[tuple[str, int, int], torch.Tensor]:
        """The unpatched weights of everything that was loaded, as host copies."""
        found = {}
        for name, loaded in self._loaded.items():
            for number, part in enumerate(loaded):
                patcher = getattr(part, "patcher", part)
                for place, weight in enumerate(() if patcher is None else patcher.pristine_weights()):
                    found[name, number, place] = on_host(weight).clone()
        return found


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of *tensor*, wherever it is; counted by nobody."""
    return tensor.inner if isinstance(tensor, CardTensor) else tensor.detach()


def tensors_in(value: Any, place: str = "") -> Tensors:
    """Every tensor and number in a result by its place, as host copies."""
    if isinstance(value, torch.Tensor):
        return {place: on_host(value).clone()}
    if isinstance(value, dict):
        return {key: found for name, part in value.items() for key, found in tensors_in(part, f"{place}.{name}").items()}
    if isinstance(value, list | tuple):
        return {key: found for number, part in enumerate(value) for key, found in tensors_in(part, f"{place}[{number}]").items()}
    if isinstance(value, int | float):
        return {place: torch.tensor(float(value))}
    return {}


def _size(tensor: torch.Tensor) -> float:
    return max(1.0, tensor.double().nan_to_num().abs().max().item())


def differences(expected: Tensors, found: Tensors, tolerance: float) -> list[str]:
    """Where *found* is not *expected*, in words; *tolerance* is a share of the largest value, or absolute below 1."""
    words = [f"only on one side: {sorted(expected.keys() ^ found.keys())[:3]}"] if expected.keys() != found.keys() else []
    for place in expected.keys() & found.keys():
        one, other = expected[place], found[place]
        if one.shape != other.shape:
            words.append(f"{place}: {tuple(one.shape)} against {tuple(other.shape)}")
        elif one.numel() and not torch.allclose(one.double(), other.double(), rtol=0, atol=tolerance * _size(one), equal_nan=True):
            words.append(f"{place} differs by {(one.double() - other.double()).abs().max().item():.3g}")
    return words


@contextlib.contextmanager
def _flags(**flags: Any) -> Iterator[None]:
    before = dict(vars(args))
    vars(args).update({"no_ram_model_cache": not flags.get("ram_model_cache_mb"), **flags})
    try:
        yield
    finally:
        vars(args).clear()
        vars(args).update(before)


@contextlib.contextmanager
def _own_models() -> Iterator[None]:
    """The process's models are those of a new process inside."""
    models = management.process_models()
    before = dict(vars(models))
    ProcessModels.__init__(models, args)
    try:
        yield
    finally:
        if models.has_manager():
            models.manager().pinner.close()
        models.ram_cache().close()
        vars(models).update(before)


@contextlib.contextmanager
def engine(cards: int = 0, card_mib: float = 4096, working_mib: float | None = None, settle: bool = True, **flags: Any) -> Iterator[Engine]:
    """An engine with *cards* pretend cards of *card_mib* MiB (0: on the plain CPU), with *flags*.

    *working_mib*: what is left free for activations, small for small cards. With *settle* everything is unloaded at the end, and nothing
    may be left: bytes, page-locked ranges, faults.
    """
    comfy.utils.set_progress_bar_enabled(False)
    if working_mib is not None:
        flags.setdefault("reserve_vram", 0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        machine = stack.enter_context(pretend_cards(cards, int(card_mib * MIB))) if cards else None
        stack.enter_context(_flags(cpu=not cards, **flags))
        if working_mib is not None:
            stack.enter_context(patch.object(devices, "WORKING_BYTES", int(working_mib * MIB)))
        stack.enter_context(_own_models())
        made = Engine(machine)
        yield made
        if machine is not None and settle:
            made.forget()
            unload(made)
            assert leftovers(made) == []


def unload(made: Engine) -> None:
    """Everything off the cards."""
    management.unload_all_models()
    gc.collect()


def leftovers(made: Engine) -> list[str]:
    """What is left on the machine after unloading, and the faults that were noticed."""
    machine = made.machine
    assert machine is not None
    found = machine.all_faults()
    found += [f"{card.used_bytes()} bytes stay on card {card.index}" for card in machine.cards if card.used_bytes()]
    return found
