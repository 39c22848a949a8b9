"""Reads the sizes of a Stable Diffusion UNet from tensor shapes and translates them for diffusers and ComfyUI."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.model_errors import ModelFileError

Shape = tuple[int, ...]
NORM_GROUPS = 32
ONE_RESIDUAL, NO_MIDDLE = -1, -2
VIDEO: Mapping[str, Any] = {  # what ComfyUI's unet_config says of networks over frames
    "extra_ff_mix_layer": True,
    "use_spatial_context": True,
    "merge_strategy": "learned_with_images",
    "merge_factor": 0.0,
    "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True,
    "use_temporal_attention": True,
    "disable_temporal_crossattention": False,
}


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Sizes of one UNet. Tuples begin with the highest resolution; depths count transformer blocks.

    ``depths`` has one number per residual block of the input half, ``output_depths`` one per output block, level by level. Of the middle
    block, ``ONE_RESIDUAL`` means that a residual block is all of it, and ``NO_MIDDLE`` that there is none, as in ComfyUI's configurations.
    ``is_video``: its blocks also go over frames, as Stable Video Diffusion's do.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    depths: tuple[int, ...]
    output_depths: tuple[int, ...]
    middle_depth: int
    context_dim: int | None
    use_linear: bool
    adm_in_channels: int | None
    num_heads: int
    num_head_channels: int
    is_video: bool = False

    def __post_init__(self) -> None:
        if (self.num_heads > 0) == (self.num_head_channels > 0):
            raise ValueError("give either num_heads or num_head_channels, the other as -1")

    @property
    def channels(self) -> tuple[int, ...]:
        """Feature channels per level."""
        return tuple(self.model_channels * multiple for multiple in self.channel_mult)

    def level_depths(self) -> tuple[int, ...]:
        """Transformer depth per level. Raises ``ModelFileError`` for networks whose blocks differ inside a level: diffusers' have one."""
        levels, position, output_position = [], 0, 0
        for blocks in self.num_res_blocks:
            inner = self.depths[position : position + blocks]
            outer = self.output_depths[output_position : output_position + blocks + 1]
            if len(set(inner + outer)) != 1 or blocks != self.num_res_blocks[0]:
                raise ModelFileError("diffusers' UNet has no uneven blocks, as SSD-1B, Vega and KOALA have them")
            levels.append(inner[0])
            position, output_position = position + blocks, output_position + blocks + 1
        if levels[-1] not in (0, self.middle_depth):
            raise ModelFileError("diffusers' UNet has no middle whose depth differs from the lowest level's")
        return tuple(levels)

    def heads(self) -> tuple[int, ...]:
        """Attention heads per level."""
        if self.num_heads > 0:
            return (self.num_heads,) * len(self.channels)
        return tuple(max(1, channels // self.num_head_channels) for channels in self.channels)

    def diffusers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of diffusers' ``UNet2DConditionModel`` for this network."""
        depths = self.level_depths()
        arguments: dict[str, Any] = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.num_res_blocks[0],
            "norm_num_groups": NORM_GROUPS,
            "cross_attention_dim": self.context_dim or self.channels[-1],
            "attention_head_dim": self.heads(),
            "use_linear_projection": self.use_linear,
            "transformer_layers_per_block": tuple(max(1, depth) for depth in (*depths[:-1], self.middle_depth)),
            "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
            "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
            "mid_block_type": "UNetMidBlock2DCrossAttn" if self.middle_depth else "UNetMidBlock2D",
        }
        if self.adm_in_channels is not None:
            arguments |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": self.adm_in_channels,
            }
        return arguments

    def as_dict(self) -> dict[str, Any]:
        """ComfyUI's ``unet_config``, by which model configurations are found and from which LoRA key maps are built."""
        config: dict[str, Any] = {
            "use_checkpoint": False,
            "image_size": 32,
            "use_spatial_transformer": True,
            "legacy": False,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "model_channels": self.model_channels,
            "num_res_blocks": list(self.num_res_blocks),
            "transformer_depth": list(self.depths),
            "transformer_depth_output": list(self.output_depths),
            "channel_mult": list(self.channel_mult),
            "transformer_depth_middle": self.middle_depth,
            "use_linear_in_transformer": self.use_linear,
            "context_dim": self.context_dim,
            "adm_in_channels": self.adm_in_channels,
            "use_temporal_attention": self.is_video,
            "num_heads": self.num_heads,
            "num_head_channels": self.num_head_channels,
        }
        if self.adm_in_channels is not None:
            config["num_classes"] = "sequential"
        return {**config, **VIDEO} if self.is_video else config


def unet_config_from_dict(config: Mapping[str, Any]) -> UNetConfig:
    """The inverse of :meth:`UNetConfig.as_dict`. Raises ``KeyError`` for a missing member."""
    return UNetConfig(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        model_channels=config["model_channels"],
        channel_mult=tuple(config["channel_mult"]),
        num_res_blocks=tuple(config["num_res_blocks"]),
        depths=tuple(config["transformer_depth"]),
        output_depths=tuple(config["transformer_depth_output"]),
        middle_depth=config["transformer_depth_middle"],
        context_dim=config["context_dim"],
        use_linear=config["use_linear_in_transformer"],
        adm_in_channels=config["adm_in_channels"],
        num_heads=config["num_heads"],
        num_head_channels=config["num_head_channels"],
        is_video=bool(config.get("use_temporal_attention")),
    )


def count_blocks(keys: Iterable[str], pattern: str) -> int:
    """Count the numbers n from 0 up, to the first gap, for which some key begins with ``pattern.format(n)``."""
    begin = pattern.partition("{")[0]
    names = [name for name in keys if name.startswith(begin)]
    count = 0
    while (numbered := pattern.format(count)) and any(name.startswith(numbered) for name in names):
        count += 1
    return count


class _Shapes:
    """Looks up shapes below a prefix and reads the block structure of the published UNet layout from them."""

    def __init__(self, shapes: Mapping[str, Shape], prefix: str) -> None:
        cut = len(prefix)
        self._shapes = {key[cut:]: tuple(shape) for key, shape in shapes.items() if key.startswith(prefix)}

    def __contains__(self, key: str) -> bool:
        return key in self._shapes

    def get(self, key: str) -> Shape | None:
        return self._shapes.get(key)

    def blocks(self, part: str) -> int:
        return len({key.split(".")[1] for key in self._shapes if key.startswith(part + ".")})

    def depth(self, block: str) -> int:
        below = block + ".transformer_blocks."
        return len({key[len(below) :].split(".")[0] for key in self._shapes if key.startswith(below)})

    def context_dim(self) -> int | None:
        return next((shape[1] for key, shape in self._shapes.items() if key.endswith("attn2.to_k.weight")), None)

    def linear_projection(self) -> bool:
        return any(key.endswith("1.proj_in.weight") and len(shape) == 2 for key, shape in self._shapes.items())

    def has_temporal_layers(self) -> bool:
        return any(".time_stack." in key or ".time_mix" in key or ".temporal" in key for key in self._shapes)

    def is_video(self) -> bool:
        """Whether it is a network over frames as Stable Video Diffusion has it."""
        first = "input_blocks.1."
        return f"{first}0.time_stack.in_layers.2.weight" in self and any(
            key.startswith(f"{first}1.time_stack.0.attn2.") for key in self._shapes
        )


def read_unet_config(shapes: Mapping[str, Shape], prefix: str, settings: Mapping[str, Any] | None = None) -> UNetConfig | None:
    """The sizes of the UNet below *prefix*, or None if the tensors are not a UNet of Stable Diffusion or Stable Video Diffusion.

    *settings* may give ``num_heads`` or ``num_head_channels``. The default is 8 heads, and 64 channels per head for UNets with linear
    projections. Raises ``ModelFileError`` for a UNet whose channels the number of heads does not divide.
    """
    tensors = _Shapes(shapes, prefix)
    first, last = tensors.get("input_blocks.0.0.weight"), tensors.get("out.2.weight")
    if first is None or last is None or len(first) != 4 or 0 in first or (tensors.has_temporal_layers() and not tensors.is_video()):
        return None
    multiples, res_blocks, depths = _read_levels(tensors, first[0])
    outputs = tensors.blocks("output_blocks")
    label = tensors.get("label_emb.0.0.weight")
    config = UNetConfig(
        in_channels=first[1],
        out_channels=last[0],
        model_channels=first[0],
        channel_mult=multiples,
        num_res_blocks=res_blocks,
        depths=depths,
        output_depths=tuple(tensors.depth(f"output_blocks.{index}.1") for index in reversed(range(outputs))),
        middle_depth=_middle_depth(tensors),
        context_dim=tensors.context_dim(),
        use_linear=tensors.linear_projection(),
        adm_in_channels=None if label is None else label[1],
        **_heads(tensors.linear_projection(), settings or {}),
        is_video=tensors.is_video(),
    )
    uneven = [(channels, heads) for channels, heads in zip(config.channels, config.heads()) if channels % heads]
    if uneven:
        raise ModelFileError(
            f"{uneven[0][0]} channels cannot be divided into {uneven[0][1]} heads; "
            "give the head count in the file's keepwarm.config metadata"
        )
    return config


def _middle_depth(tensors: _Shapes) -> int:
    """Transformer blocks in the middle, or what stands for a middle without a second residual block."""
    if "middle_block.0.in_layers.0.weight" not in tensors:
        return NO_MIDDLE
    return tensors.depth("middle_block.1") if tensors.blocks("middle_block") > 1 else ONE_RESIDUAL


def _read_levels(tensors: _Shapes, model_channels: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    multiples: list[int] = []
    res_blocks: list[int] = []
    depths: list[int] = []
    blocks, multiple = 0, 1
    for index in range(1, tensors.blocks("input_blocks")):
        if f"input_blocks.{index}.0.op.weight" in tensors:
            multiples.append(multiple)
            res_blocks.append(blocks)
            blocks = 0
            continue
        shape = tensors.get(f"input_blocks.{index}.0.out_layers.3.weight")
        if shape is None:
            raise ModelFileError(f"the UNet's input block {index} is neither a residual block nor a downsampling")
        blocks += 1
        multiple = shape[0] // model_channels
        depths.append(tensors.depth(f"input_blocks.{index}.1"))
    return (*multiples, multiple), (*res_blocks, blocks), tuple(depths)


def _heads(linear: bool, settings: Mapping[str, Any]) -> dict[str, int]:
    if "num_heads" in settings:
        return {"num_heads": settings["num_heads"], "num_head_channels": -1}
    if "num_head_channels" in settings or linear:
        return {"num_heads": -1, "num_head_channels": settings.get("num_head_channels", 64)}
    return {"num_heads": 8, "num_head_channels": -1}
