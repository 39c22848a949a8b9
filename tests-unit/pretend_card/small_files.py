"""Small files with random weights: checkpoints, LoRAs of every kind, ControlNets, embeddings, approximating decoders."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import torch
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from engine import engine
from safetensors import safe_open
from safetensors.torch import save_file

import comfy.lora
from benchmarks.make_addons import controlnet_layout, embedding_tensors, lora_tensors
from benchmarks.make_checkpoint import PARTS, checkpoint_layout, family, write_checkpoint

FAMILIES = ("sd15", "sdxl")
LAYERS = 10  # of each LoRA
Shape = tuple[int, ...]
Tensors = dict[str, torch.Tensor]


def write_small_files(folder: pathlib.Path) -> None:
    """Write them all below *folder*, by kind."""
    for kind in ("checkpoints", "loras", "controlnet", "embeddings", "vae_approx", "vae", "diffusion_models", "text_encoders"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name in FAMILIES:
        _write_family(folder, name)
    _write_loras(folder / "loras")
    _write_approximations(folder / "vae_approx")


def _write_family(folder: pathlib.Path, name: str) -> None:
    sizes = family(name, 10)
    checkpoint = folder / "checkpoints" / f"small-{name}.safetensors"
    write_checkpoint(str(checkpoint), checkpoint_layout(sizes, PARTS), 0, "fp32", metadata=sizes.metadata())
    network = folder / "diffusion_models" / f"small-{name}.safetensors"
    write_checkpoint(str(network), checkpoint_layout(sizes, ("unet",)), 0, "fp16", metadata=sizes.metadata())
    for number in (1, 2):
        control = folder / "controlnet" / f"small-{name}-{number}.safetensors"
        write_checkpoint(str(control), controlnet_layout(sizes), number, "fp32", metadata=sizes.metadata())
    save_file(lora_tensors(sizes, 1, 4, 0.5), folder / "loras" / f"small-{name}.safetensors")
    save_file(embedding_tensors(sizes), folder / "embeddings" / f"small_{name}.safetensors")
    prefix = "cond_stage_model.transformer." if name == "sd15" else "conditioner.embedders.0.transformer."
    with safe_open(checkpoint, "pt") as file:
        text = {key.removeprefix(prefix): file.get_tensor(key).clone() for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        vae = {
            key.removeprefix("first_stage_model."): file.get_tensor(key).clone()
            for key in file.keys()  # noqa: SIM118
            if key.startswith("first_stage_model.")
        }
        save_file(text, folder / "text_encoders" / f"small-{name}.safetensors", metadata=file.metadata())
        save_file(vae, folder / "vae" / f"small-{name}.safetensors")


def _columns(shape: Shape) -> int:
    return math.prod(shape[1:])


class Adapters:
    """Makes the tensors of one layer's change, by kind; *name* is the trainer's name of the layer."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(9)

    def _random(self, *shape: int, scale: float = 0.1) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator) * scale

    def plain(self, name: str, shape: Shape) -> Tensors:
        rest = [1] * (len(shape) - 2)
        return {
            f"{name}.lora_down.weight": self._random(4, *shape[1:], scale=_columns(shape) ** -0.5).half(),
            f"{name}.lora_up.weight": self._random(shape[0], 4, *rest, scale=0.2).half(),
            f"{name}.alpha": torch.tensor(2.0),
        }

    def diffusers(self, name: str, shape: Shape) -> Tensors:
        down, up, _ = self.plain(name, shape).values()
        return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

    def dora(self, name: str, shape: Shape) -> Tensors:
        scale = self._random(shape[0], *[1] * (len(shape) - 1)).abs() + 0.5
        return {**self.plain(name, shape), f"{name}.dora_scale": scale}

    def mid(self, name: str, shape: Shape) -> Tensors:
        if shape[2:] != (3, 3):
            return {}
        return {
            f"{name}.lora_up.weight": self._random(shape[0], 4, 1, 1),
            f"{name}.lora_down.weight": self._random(4, shape[1], 1, 1),
            f"{name}.lora_mid.weight": self._random(4, 4, 3, 3),
            f"{name}.alpha": torch.tensor(4.0),
        }

    def loha(self, name: str, shape: Shape) -> Tensors:
        made: Tensors = {f"{name}.alpha": torch.tensor(4.0)}
        for part in ("w1", "w2"):
            made[f"{name}.hada_{part}_a"] = self._random(shape[0], 4, scale=0.3)
            made[f"{name}.hada_{part}_b"] = self._random(4, _columns(shape), scale=0.3)
        return made

    def lokr(self, name: str, shape: Shape) -> Tensors:
        factor = 2 if shape[0] % 2 == shape[1] % 2 == 0 else 1
        return {
            f"{name}.lokr_w1": self._random(factor, factor, scale=0.3),
            f"{name}.lokr_w2_a": self._random(shape[0] // factor, 3, scale=0.2),
            f"{name}.lokr_w2_b": self._random(3, _columns(shape) // factor, scale=0.2),
            f"{name}.alpha": torch.tensor(3.0),
        }

    def glora(self, name: str, shape: Shape) -> Tensors:
        if len(shape) != 2:
            return {}
        sides = {"a1": (4, shape[1]), "a2": (shape[1], 4), "b1": (4, shape[1]), "b2": (shape[0], 4)}
        return {f"{name}.{part}.weight": self._random(*size, scale=0.05) for part, size in sides.items()} | {
            f"{name}.alpha": torch.tensor(2.0)
        }

    def oft(self, name: str, shape: Shape) -> Tensors:
        return {f"{name}.oft_blocks": self._random(shape[0] // 4, 4, 4), f"{name}.alpha": torch.tensor(0.01)} if shape[0] % 4 == 0 else {}

    def boft(self, name: str, shape: Shape) -> Tensors:
        if shape[0] % 4:
            return {}
        return {f"{name}.oft_blocks": self._random(2, shape[0] // 4, 4, 4), f"{name}.alpha": torch.tensor(0.0)}

    def diff(self, name: str, shape: Shape) -> Tensors:
        return {f"{name}.diff": self._random(*shape, scale=0.02), f"{name}.diff_b": self._random(shape[0], scale=0.02)}

    def replaced(self, name: str, shape: Shape) -> Tensors:
        return {f"{name}.set_weight": self._random(*shape, scale=0.05)}


KINDS: dict[str, Callable[[Adapters, str, Shape], Tensors]] = {
    "plain": Adapters.plain,
    "diffusers": Adapters.diffusers,
    "dora": Adapters.dora,
    "mid": Adapters.mid,
    "loha": Adapters.loha,
    "lokr": Adapters.lokr,
    "glora": Adapters.glora,
    "oft": Adapters.oft,
    "boft": Adapters.boft,
    "diff": Adapters.diff,
    "replaced": Adapters.replaced,
}


def _write_loras(folder: pathlib.Path) -> None:
    """A file of each kind for the starter model, and one for its text encoder."""
    with engine() as made:
        model, clip, _ = made.checkpoint()
        network, text = comfy.lora.model_lora_keys_unet(model.model, {}), comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
        layers = _some_layers(network, model.weights, "lora_unet_")
        diffusers_layers = _some_layers(network, model.weights, "unet.")
        text_layers = _some_layers(text, clip.patcher.weights, "lora_te")
    adapters = Adapters()
    for kind, make in KINDS.items():
        tensors: Tensors = {}
        for name, shape in diffusers_layers if kind == "diffusers" else layers:
            tensors |= make(adapters, name, shape)
        save_file(tensors, folder / f"starter-{kind}.safetensors")
    text_tensors: Tensors = {}
    for name, shape in text_layers:
        text_tensors |= adapters.plain(name, shape)
    save_file(text_tensors, folder / "starter-text.safetensors")


def _some_layers(names: dict[str, object], weights: object, prefix: str) -> list[tuple[str, Shape]]:
    """(trainer's name, shape) of some of the layers, both matrices and convolutions."""
    found: dict[object, tuple[str, Shape]] = {}
    for name, key in names.items():
        if name.startswith(prefix) and isinstance(key, str) and key.endswith(".weight"):
            shape = weights.shape(key)  # type: ignore[attr-defined]
            if len(shape) >= 2:
                found.setdefault(key, (name, tuple(shape)))
    layers = list(found.values())
    every = layers[:: max(1, len(layers) // LAYERS)][:LAYERS]
    windows = [layer for layer in layers if layer[1][2:] == (3, 3) and layer not in every][:2]
    return every + windows


def _write_approximations(folder: pathlib.Path) -> None:
    torch.manual_seed(4)
    decoder = DecoderTiny(4, 3, (3, 3, 3, 1), (64,) * 4, 2, "relu", "nearest").state_dict()
    encoder = EncoderTiny(3, 4, (1, 3, 3, 3), (64,) * 4, "relu").state_dict()
    save_file(_renumbered(decoder, 1), folder / "taesd_decoder.safetensors")
    save_file(_renumbered(encoder, 0), folder / "taesd_encoder.safetensors")


def _renumbered(weights: Tensors, shift: int) -> Tensors:
    renamed = {}
    for key, value in weights.items():
        _, number, rest = key.split(".", 2)
        renamed[f"{int(number) + shift}.{rest}"] = value.clone()
    return renamed
