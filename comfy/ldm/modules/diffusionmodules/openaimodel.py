"""Stable Diffusion's UNet: diffusers' layers, walked in ComfyUI's block numbering with ComfyUI's hooks.

``input_blocks[i]``, ``middle_block`` and ``output_blocks[i]`` are sequences of layers as node packs know them; the parameters keep
diffusers' names. Which parameter holds which published tensor is in the table that :meth:`UNetModel.load_weights` returns.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D

import comfy.ops
import comfy.patcher_extension
from comfy.families.sd_unet_config import unet_config_from_dict
from comfy.families.sd_unet_weights import load_unet_weights
from comfy.families.timestep_embedding import Timestep, timestep_embedding
from comfy.families.weight_names import WeightNames
from comfy.ldm.modules.attention import SpatialTransformer, adopt_transformers

log = logging.getLogger(__name__)

__all__ = [
    "Downsample",
    "ResBlock",
    "Timestep",
    "TimestepBlock",
    "TimestepEmbedSequential",
    "UNetModel",
    "Upsample",
    "VideoResBlock",
    "adopt_blocks",
    "apply_control",
    "forward_timestep_embed",
    "timestep_embedding",
]


class TimestepBlock(torch.nn.Module):
    """A layer that takes the time embedding as its second argument."""


class ResBlock(ResnetBlock2D, TimestepBlock):
    """Two normalised convolutions around the time embedding, with a residual connection."""

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """B x C in x height x width, B x time width to B x C out x height x width."""
        h = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = h + self.time_emb_proj(F.silu(emb)).type(h.dtype)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class VideoResBlock(ResBlock):
    """Never instantiated here: the class that packs test for to tell video networks apart."""


class Downsample(Downsample2D):
    """A convolution that halves height and width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x height x width to half of both, rounded up."""
        return self.conv(x)


class Upsample(Upsample2D):
    """Nearest-neighbour doubling (or to the shape of the layer that comes next), then a convolution."""

    conv: Any

    def forward(  # type: ignore[override]  # ComfyUI's signature, not diffusers'
        self, x: torch.Tensor, output_shape: Iterable[int] | None = None
    ) -> torch.Tensor:
        """B x C x height x width to the last two of *output_shape*, or to twice the size."""
        size = [x.shape[2] * 2, x.shape[3] * 2] if output_shape is None else list(output_shape)[2:4]
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class TimestepEmbedSequential(tuple):
    """Layers of one numbered block. Holds no parameters: the network's modules own the layers."""

    def __call__(self, x: torch.Tensor, emb: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the layers, see :func:`forward_timestep_embed`."""
        return forward_timestep_embed(self, x, emb, *args, **kwargs)


def adopt_blocks(module: torch.nn.Module, operations: Any = comfy.ops.disable_weight_init) -> None:
    """Give every diffusers layer of a UNet below *module* ComfyUI's class, in place; parameter names stay.

    *operations* provides the classes of the layers that hold weights.
    """
    kinds = {ResnetBlock2D: ResBlock, Downsample2D: Downsample, Upsample2D: Upsample}
    for layer in module.modules():
        layer.__class__ = kinds.get(type(layer), type(layer))
    adopt_transformers(module)
    comfy.ops.adopt_layers(module, operations)


def forward_timestep_embed(
    ts: Iterable[torch.nn.Module],
    x: torch.Tensor,
    emb: torch.Tensor,
    context: Any = None,
    transformer_options: dict[str, Any] | None = None,
    output_shape: Any = None,
    time_context: Any = None,
    num_video_frames: Any = None,
    image_only_indicator: Any = None,
) -> torch.Tensor:
    """Run the layers *ts* of one block over feature map *x*, handing each what it takes.

    A ``forward_timestep_embed_patch`` entry (class, handler) replaces the layers that are instances of its class.
    """
    options = {} if transformer_options is None else transformer_options
    handlers = options.get("patches", {}).get("forward_timestep_embed_patch", ())
    for layer in ts:
        handler = next((handler for kind, handler in handlers if isinstance(layer, kind)), None)
        if handler is not None:
            x = handler(layer, x, emb, context, options, output_shape, time_context, num_video_frames, image_only_indicator)
        elif isinstance(layer, TimestepBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialTransformer):
            x = layer(x, context, options)
            if "transformer_index" in options:
                options["transformer_index"] += 1
        elif isinstance(layer, Upsample):
            x = layer(x, output_shape=output_shape)
        else:
            x = layer(x)
    return x


def apply_control(h: torch.Tensor, control: Mapping[str, list[Any]] | None, name: str) -> torch.Tensor:
    """Add the next control residual of part *name* ("input", "middle", "output") to *h* in place; it leaves the list."""
    if not control or not control.get(name):
        return h
    residual = control[name].pop()
    if residual is not None:
        try:
            h += residual
        except RuntimeError:
            log.warning(
                "a control residual of shape %s does not fit features of shape %s and is left out", tuple(residual.shape), tuple(h.shape)
            )
    return h


class InputHalf(torch.nn.Module):
    """The numbered blocks of a UNet's first half and its embeddings, over diffusers' layers."""

    conv_in: Any
    time_embedding: Any
    add_embedding: Any
    down_blocks: Any
    mid_block: Any

    @property
    def input_blocks(self) -> list[TimestepEmbedSequential]:
        """The first half, ComfyUI's numbering: stem, then per level its residual blocks and a downsampling."""
        blocks = [TimestepEmbedSequential((self.conv_in,))]
        for level in self.down_blocks:
            attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
            blocks += [_block(pair) for pair in zip(level.resnets, attentions)]
            blocks += [_block((layer,)) for layer in level.downsamplers or ()]
        return blocks

    @property
    def middle_block(self) -> TimestepEmbedSequential:
        """Residual, transformer, residual."""
        attentions = list(getattr(self.mid_block, "attentions", None) or ())
        return _block((self.mid_block.resnets[0], *attentions, self.mid_block.resnets[1]))

    def time_embed(self, t_emb: torch.Tensor) -> torch.Tensor:
        """The time embedding from its sinusoids."""
        return self.time_embedding.linear_2(F.silu(self.time_embedding.linear_1(t_emb)))

    def label_emb(self, y: torch.Tensor) -> torch.Tensor:
        """The embedding of the vector conditioning."""
        return self.add_embedding.linear_2(F.silu(self.add_embedding.linear_1(y)))


class UNetModel(InputHalf):
    """The network of one SD 1.x or SDXL model, from ComfyUI's ``unet_config`` members as keyword arguments.

    Parameters are on the meta device until :meth:`load_weights`. ``dtype`` is the dtype weights are kept in.
    """

    up_blocks: Any
    conv_norm_out: Any
    conv_out: Any

    def __init__(
        self, dtype: torch.dtype | None = None, device: torch.device | None = None, operations: Any = None, **unet_config: Any
    ) -> None:
        super().__init__()
        self.config = unet_config_from_dict(unet_config)
        self.dtype = torch.float32 if dtype is None else dtype
        self.device = device
        self.model_channels = self.config.model_channels
        self.in_channels = self.config.in_channels
        self.out_channels = self.config.out_channels
        self.num_classes = unet_config.get("num_classes")
        with torch.device("meta"):
            built = UNet2DConditionModel(**self.config.diffusers_arguments())
        adopt_blocks(built, operations or comfy.ops.disable_weight_init)
        for name in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks", "conv_norm_out", "conv_out"):
            layer = getattr(built, name, None)
            if layer is not None:
                setattr(self, name, layer)

    @property
    def output_blocks(self) -> list[TimestepEmbedSequential]:
        """The second half; the last residual block of a level is followed by an upsampling in the same block."""
        blocks = []
        for level in self.up_blocks:
            attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
            layers = [list(pair) for pair in zip(level.resnets, attentions)]
            layers[-1] += level.upsamplers or ()
            blocks += [_block(block) for block in layers]
        return blocks

    def out(self, h: torch.Tensor) -> torch.Tensor:
        """The prediction from the last features."""
        return self.conv_out(F.silu(self.conv_norm_out(h), inplace=True))

    def load_weights(self, source: Any, prefix: str = "") -> WeightNames:
        """Give the network its weights from *source* (state dict or weight source) below *prefix*.

        Returns the table of published names. Raises ``ModelFileError`` if tensors are missing or do not fit.
        """
        return load_unet_weights(self, source, prefix, self.dtype, self.device)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor | None = None,
        context: Any = None,
        y: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: Any = None,
        y: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x C x height x width, *timesteps* B, *context* B x tokens x width, *y* B x vector width (SDXL).

        *control* maps input/middle/output to lists of residuals, last first; they are consumed.
        """
        options = {} if transformer_options is None else transformer_options
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        if (y is None) != (self.num_classes is None):
            raise ValueError("this network needs vector conditioning y" if y is None else "this network takes no vector conditioning y")
        emb = self._embed(timesteps, y, options, x.dtype)
        h, skips = self._run_input(x, emb, context, control, options)
        h = self._run_middle(h, emb, context, control, options, {"x": x, "y": y, "timesteps": timesteps})
        h = self._run_output(h, skips, emb, context, control, options)
        return self.out(h.type(x.dtype))

    def _embed(self, timesteps: torch.Tensor, y: torch.Tensor | None, options: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(dtype))
        for patch in options.get("patches", {}).get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        return emb if y is None else emb + self.label_emb(y)

    def _run_input(
        self, h: torch.Tensor, emb: torch.Tensor, context: Any, control: Any, options: dict[str, Any]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        patches = options.get("patches", {})
        skips = []
        for number, block in enumerate(self.input_blocks):
            options["block"] = ("input", number)
            h = apply_control(forward_timestep_embed(block, h, emb, context, options), control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        return h, skips

    def _run_middle(
        self, h: torch.Tensor, emb: torch.Tensor, context: Any, control: Any, options: dict[str, Any], seen: dict[str, Any]
    ) -> torch.Tensor:
        options["block"] = ("middle", 0)
        h = apply_control(forward_timestep_embed(self.middle_block, h, emb, context, options), control, "middle")
        for patch in options.get("patches", {}).get("middle_block_after_patch", ()):
            h = patch({"h": h, "emb": emb, "context": context, "transformer_options": options, **seen})["h"]
        return h

    def _run_output(
        self, h: torch.Tensor, skips: list[torch.Tensor], emb: torch.Tensor, context: Any, control: Any, options: dict[str, Any]
    ) -> torch.Tensor:
        for number, block in enumerate(self.output_blocks):
            options["block"] = ("output", number)
            skip = apply_control(skips.pop(), control, "output")
            for patch in options.get("patches", {}).get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            if skip is not None:
                h = torch.cat([h, skip], dim=1)
                del skip
            h = forward_timestep_embed(block, h, emb, context, options, skips[-1].shape if skips else None)
        return h


def _block(layers: Iterable[torch.nn.Module | None]) -> TimestepEmbedSequential:
    return TimestepEmbedSequential(layer for layer in layers if layer is not None)
