"""Stable Diffusion's UNet in ComfyUI's tree, numbering and published weight names, with ComfyUI's hooks.

Node packs reach into ``input_blocks[i]``, ``middle_block``, ``output_blocks[i]``, ``time_embed``, ``label_emb`` and ``out``, replace
layers and their ``forward``, and replace :func:`forward_timestep_embed` in this module; each is looked up when it is called.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import comfy.ops
import comfy.patcher_extension
from comfy.families.sd_unet_config import UNetConfig, unet_config_from_dict
from comfy.families.sd_unet_weights import load_unet_weights
from comfy.families.timestep_embedding import Timestep, timestep_embedding
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.fixed_arguments import check_unet
from comfy.ldm.modules.diffusionmodules.unet_blocks import UNetBlocks
from comfy.ldm.modules.diffusionmodules.unet_layers import Downsample, ResBlock, TimestepBlock, Upsample, VideoResBlock
from comfy.ldm.modules.sdpose import HeatmapHead
from comfy.ldm.modules.video_attention import SpatialVideoTransformer

log = logging.getLogger(__name__)

OF_FRAMES = ("time_context", "num_video_frames", "image_only_indicator")  # arguments of networks over frames

__all__ = [
    "Downsample",
    "ResBlock",
    "SpatialTransformer",
    "SpatialVideoTransformer",
    "Timestep",
    "TimestepBlock",
    "TimestepEmbedSequential",
    "UNetModel",
    "Upsample",
    "VideoResBlock",
    "apply_control",
    "forward_timestep_embed",
    "timestep_embedding",
]


class TimestepEmbedSequential(torch.nn.Sequential, TimestepBlock):
    """The layers of one numbered block."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the layers, see :func:`forward_timestep_embed`."""
        return forward_timestep_embed(self, *args, **kwargs)


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
        elif isinstance(layer, VideoResBlock):
            x = layer(x, emb, num_video_frames, image_only_indicator)
        elif isinstance(layer, TimestepBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialVideoTransformer):
            x = layer(x, context, time_context, num_video_frames, image_only_indicator, options)
            if "transformer_index" in options:
                options["transformer_index"] += 1
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
    """The numbered blocks of a UNet's first half and its embeddings.

    Attributes with the names and values of the ``unet_config`` it is made from are what node packs read. Raises ``TypeError`` and
    ``ValueError`` for members that ask for another network.
    """

    MAY_BE_VIDEO = False  # whether its forward tells the blocks of frames
    label_emb: torch.nn.Module
    input_blocks: Any
    middle_block: Any

    def __init__(self, unet_config: Mapping[str, Any], dtype: torch.dtype | None, device: torch.device | None, blocks: UNetBlocks) -> None:
        super().__init__()
        check_unet(type(self).__name__, unet_config, self.MAY_BE_VIDEO)
        self.config: UNetConfig = blocks.config
        self.dtype = torch.float32 if dtype is None else dtype
        self.device = device
        self.in_channels, self.model_channels = self.config.in_channels, self.config.model_channels
        self.num_res_blocks, self.channel_mult = list(self.config.num_res_blocks), self.config.channel_mult
        self.num_heads, self.num_head_channels = self.config.num_heads, self.config.num_head_channels
        self.num_classes = unet_config.get("num_classes")
        self.dropout, self.dims, self.conv_resample, self.use_checkpoint = 0, 2, True, False
        self.predict_codebook_ids, self.use_temporal_resblocks, self.default_num_video_frames = False, self.config.is_video, None
        self.num_heads_upsample = self.num_heads
        self.time_embed = blocks.time_embed()
        if self.config.adm_in_channels is not None:
            self.label_emb = blocks.label_emb()
        self.input_blocks = _blocks(blocks.input_blocks())
        self.middle_block = TimestepEmbedSequential(*blocks.middle_block())


class UNetModel(InputHalf):
    """The network of one Stable Diffusion 1, 2 or XL model, from ComfyUI's ``unet_config`` members as keyword arguments.

    Parameters are on the meta device until :meth:`load_weights`. ``dtype`` is the dtype weights are kept in.
    """

    MAY_BE_VIDEO = True
    output_blocks: Any
    out: Any

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
        heatmap_head: int = 0,
        **unet_config: Any,
    ) -> None:
        """*heatmap_head*: of how many points SDPose's head makes maps; 0: there is none."""
        blocks = UNetBlocks(unet_config_from_dict(unet_config), operations or comfy.ops.disable_weight_init)
        super().__init__(unet_config, dtype, device, blocks)
        if heatmap_head:
            self.heatmap_head = HeatmapHead(2 * self.model_channels, heatmap_head, torch.device("meta"), operations=operations)
        self.out_channels = self.config.out_channels
        self.output_blocks = _blocks(blocks.output_blocks())
        self.out = blocks.out()
        self._feature_size = blocks.feature_size

    def load_weights(self, source: Any, prefix: str = "") -> None:
        """Give the network its weights from *source* (state dict or weight source) below *prefix*.

        Raises ``ModelFileError`` if tensors are missing or do not fit.
        """
        load_unet_weights(self, source, prefix, self.dtype, self.device)

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

        *control* maps input/middle/output to lists of residuals, last first; they are consumed. Networks over frames also take
        ``num_video_frames`` (frames are along B, video by video), ``time_context`` and ``image_only_indicator``.
        """
        options = {} if transformer_options is None else transformer_options
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        if (y is None) != (self.num_classes is None):
            raise ValueError("this network needs vector conditioning y" if y is None else "this network takes no vector conditioning y")
        emb = self._embed(timesteps, y, options, x.dtype)
        frames = {name: kwargs.get(name) for name in OF_FRAMES} if self.config.is_video else {}
        h, skips = self._run_input(x, emb, context, control, options, **frames)
        h = self._run_middle(h, emb, context, control, options, {"x": x, "y": y, "timesteps": timesteps}, **frames)
        h = self._run_output(h, skips, emb, context, control, options, **frames)
        return self.out(h.type(x.dtype))

    def _embed(self, timesteps: torch.Tensor, y: torch.Tensor | None, options: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(dtype))
        for patch in options.get("patches", {}).get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        return emb if y is None else emb + self.label_emb(y)

    def _run_input(
        self, h: torch.Tensor, emb: torch.Tensor, context: Any, control: Any, options: dict[str, Any], **frames: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        patches = options.get("patches", {})
        skips = []
        for number, block in enumerate(self.input_blocks):
            options["block"] = ("input", number)
            h = apply_control(forward_timestep_embed(block, h, emb, context, options, **frames), control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
        return h, skips

    def _run_middle(
        self, h: torch.Tensor, emb: torch.Tensor, context: Any, control: Any, options: dict[str, Any], seen: dict[str, Any], **frames: Any
    ) -> torch.Tensor:
        options["block"] = ("middle", 0)
        h = apply_control(forward_timestep_embed(self.middle_block, h, emb, context, options, **frames), control, "middle")
        for patch in options.get("patches", {}).get("middle_block_after_patch", ()):
            h = patch({"h": h, "emb": emb, "context": context, "transformer_options": options, **seen})["h"]
        return h

    def _run_output(
        self,
        h: torch.Tensor,
        skips: list[torch.Tensor],
        emb: torch.Tensor,
        context: Any,
        control: Any,
        options: dict[str, Any],
        **frames: Any,
    ) -> torch.Tensor:
        for number, block in enumerate(self.output_blocks):
            options["block"] = ("output", number)
            skip = apply_control(skips.pop(), control, "output")
            for patch in options.get("patches", {}).get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            if skip is not None:
                h = torch.cat([h, skip], dim=1)
                del skip
            h = forward_timestep_embed(block, h, emb, context, options, skips[-1].shape if skips else None, **frames)
        return h


def _blocks(layers: Iterable[Iterable[torch.nn.Module]]) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(TimestepEmbedSequential(*block) for block in layers)
