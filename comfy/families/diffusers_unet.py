"""Presents diffusion model files in diffusers' own key names under the published names."""

from collections.abc import Iterable, Mapping

import torch

from comfy.families.diffusers_names import unet_names
from comfy.families.family_settings import family_settings
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, naming_file
from comfy.families.published_layout import unet_layout
from comfy.families.sd_unet_config import UNetConfig, count_blocks
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
WHAT = "the diffusion model"
CLASS_VECTOR = "class_embedding."  # where vector conditioning enters networks of one task, as Lotus
_MARKS = ("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_out.weight")


class RenamedSource:
    """Presents *source* under other names: *names* maps each new name to the one in *source*, *shapes* each new name to its shape."""

    def __init__(self, source: WeightSource, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
        self._source = source
        self._names = names
        self._shapes = shapes
        self.name = source.name
        self.metadata = source.metadata

    @property
    def read_bytes(self) -> int | None:
        return self._source.read_bytes

    def shapes(self) -> Mapping[str, Shape]:
        return self._shapes

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(self._names[key])

    def fixed_bytes(self, key: str) -> int | None:
        return self._source.fixed_bytes(self._names[key])

    def take(self, keys: Iterable[str], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        asked = list(keys)
        taken = self._source.take([self._names[key] for key in asked], dtype)
        found = {key: taken[self._names[key]] for key in asked}
        return {key: tensor if tensor.shape == self._shapes[key] else tensor.view(self._shapes[key]) for key, tensor in found.items()}


def as_published_unet(source: WeightSource) -> WeightSource:
    """*source* itself, or *source* under the published names if it is a UNet in diffusers' names.

    Raises ``IncompleteModelError`` when tensors of such a file are missing or have shapes that do not fit its sizes.
    """
    shapes = source.shapes()
    if not all(mark in shapes for mark in _MARKS):
        return source
    settings = family_settings(source.metadata, source.name).get("unet", {})
    with naming_file(source.name, WHAT):
        config = read_diffusers_config(shapes, settings)
        layout = unet_layout(config)
        names = unet_names(config)
        if f"{CLASS_VECTOR}linear_1.weight" in shapes:
            names = {key: name.replace("add_embedding.", CLASS_VECTOR) for key, name in names.items()}
    say_unused(source.name, WHAT, shapes, set(names.values()))
    for key, name in names.items():
        if name not in shapes or torch.Size(shapes[name]).numel() != torch.Size(layout[key]).numel():
            raise IncompleteModelError(
                f"the diffusion model in {source.name}: {name} should have shape {list(layout[key])}, "
                f"the file has {list(shapes[name]) if name in shapes else 'no such tensor'}"
            )
    return RenamedSource(source, names, layout)


def read_diffusers_config(shapes: Mapping[str, Shape], settings: Mapping[str, int]) -> UNetConfig:
    """The sizes of a UNet in diffusers' names; *settings* may give its heads. Raises ``KeyError`` when a needed tensor is missing."""
    levels = count_blocks(shapes, "down_blocks.{}.")
    blocks = count_blocks(shapes, "down_blocks.0.resnets.{}.")
    depths = [count_blocks(shapes, f"down_blocks.{level}.attentions.0.transformer_blocks.{{}}.") for level in range(levels)]
    widths = [shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)]
    linear = any(key.endswith("attentions.0.proj_in.weight") and len(shape) == 2 for key, shape in shapes.items())
    vector = shapes.get("add_embedding.linear_1.weight", shapes.get(f"{CLASS_VECTOR}linear_1.weight"))
    context = next((shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")), None)
    by_channels = "num_head_channels" in settings or (linear and "num_heads" not in settings)
    stem = shapes["conv_in.weight"]
    return UNetConfig(
        in_channels=stem[1],
        out_channels=shapes["conv_out.weight"][0],
        model_channels=stem[0],
        channel_mult=tuple(width // stem[0] for width in widths),
        num_res_blocks=(blocks,) * levels,
        depths=tuple(depth for depth in depths for _ in range(blocks)),
        output_depths=tuple(depth for depth in depths for _ in range(blocks + 1)),
        middle_depth=count_blocks(shapes, "mid_block.attentions.0.transformer_blocks.{}."),
        context_dim=context,
        use_linear=linear,
        adm_in_channels=None if vector is None else vector[1],
        num_heads=-1 if by_channels else settings.get("num_heads", 8),
        num_head_channels=settings.get("num_head_channels", 64) if by_channels else -1,
    )
