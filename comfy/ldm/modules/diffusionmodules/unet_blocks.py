"""Which layers the numbered blocks of a Stable Diffusion UNet hold, from its sizes."""

from typing import Any

import torch

from comfy.families.sd_unet_config import NO_MIDDLE, NORM_GROUPS, ONE_RESIDUAL, VIDEO, UNetConfig
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.unet_layers import Downsample, ResBlock, Upsample, VideoResBlock
from comfy.ldm.modules.video_attention import SpatialVideoTransformer

META: dict[str, Any] = {"device": "meta"}
ACROSS_FRAMES = ("use_spatial_context", "merge_strategy", "merge_factor", "disable_temporal_crossattention")
Layers = list[torch.nn.Module]


class UNetBlocks:
    """Makes the layers for *config*, on the meta device, of the weight-holding classes in *operations*.

    Call :meth:`input_blocks`, :meth:`middle_block` and :meth:`output_blocks` in this order: each goes on from the channels before it.
    ``feature_size`` sums the channels of all blocks made so far.
    """

    def __init__(self, config: UNetConfig, operations: Any) -> None:
        self.config = config
        self.feature_size = 0
        self._operations = operations
        self._time = config.model_channels * 4
        self._channels = config.model_channels
        self._skips: list[int] = []

    @property
    def skip_channels(self) -> list[int]:
        """The channels of each input block's result that no output block has taken yet."""
        return list(self._skips)

    def time_embed(self) -> torch.nn.Sequential:
        """From the sinusoids of the time to its embedding."""
        return self._embedding(self.config.model_channels)

    def label_emb(self) -> torch.nn.Sequential:
        """From the vector conditioning to what is added to the time's embedding."""
        return torch.nn.Sequential(self._embedding(self.config.adm_in_channels or 0))

    def _embedding(self, width: int) -> torch.nn.Sequential:
        linear = self._operations.Linear
        return torch.nn.Sequential(linear(width, self._time, **META), torch.nn.SiLU(), linear(self._time, self._time, **META))

    def input_blocks(self) -> list[Layers]:
        """The first half: stem, then per level its residual blocks and, but for the last, a downsampling."""
        config = self.config
        blocks: list[Layers] = [[self._operations.conv_nd(2, config.in_channels, config.model_channels, 3, padding=1, **META)]]
        self._count(keep=True)
        depths = iter(config.depths)
        for level, width in enumerate(config.channels):
            for _ in range(config.num_res_blocks[level]):
                blocks.append(self._stage(self._channels, width, next(depths)))
                self._count(keep=True)
            if level + 1 < len(config.channels):
                blocks.append([Downsample(width, True, operations=self._operations, **META)])
                self._count(keep=True)
        return blocks

    def middle_block(self) -> Layers:
        """Residual, transformer, residual; in pruned networks a residual block alone, or nothing."""
        depth = self.config.middle_depth
        if depth == NO_MIDDLE:
            return []
        layers = self._stage(self._channels, self._channels, max(depth, 0))
        self._count()
        return layers if depth == ONE_RESIDUAL else [*layers, self._residual(self._channels, self._channels)]

    def output_blocks(self) -> list[Layers]:
        """The second half; the last block of a level but the highest ends with an upsampling."""
        config, blocks = self.config, []
        depths = list(config.output_depths)
        for level in reversed(range(len(config.channels))):
            width, count = config.channels[level], config.num_res_blocks[level] + 1
            for index in range(count):
                layers = self._stage(self._channels + self._skips.pop(), width, depths.pop())
                if level and index + 1 == count:
                    layers.append(Upsample(width, True, operations=self._operations, **META))
                blocks.append(layers)
                self._count()
        return blocks

    def out(self) -> torch.nn.Sequential:
        """From the last features to the prediction."""
        norm = self._operations.GroupNorm(NORM_GROUPS, self._channels, **META)
        last = self._operations.conv_nd(2, self.config.model_channels, self.config.out_channels, 3, padding=1, **META)
        return torch.nn.Sequential(norm, torch.nn.SiLU(inplace=True), last)

    def _count(self, keep: bool = False) -> None:
        self.feature_size += self._channels
        if keep:
            self._skips.append(self._channels)

    def _stage(self, channels_in: int, channels_out: int, depth: int) -> Layers:
        layers: Layers = [self._residual(channels_in, channels_out)]
        if depth:
            layers.append(self._transformer(channels_out, depth))
        self._channels = channels_out
        return layers

    def _residual(self, channels_in: int, channels_out: int) -> ResBlock:
        if self.config.is_video:
            sizes = {name: VIDEO[name] for name in ("video_kernel_size", "merge_strategy", "merge_factor")}
            return VideoResBlock(channels_in, self._time, 0, out_channels=channels_out, operations=self._operations, **sizes, **META)
        return ResBlock(channels_in, self._time, 0, channels_out, operations=self._operations, **META)

    def _transformer(self, channels: int, depth: int) -> SpatialTransformer:
        config = self.config
        heads = config.num_heads if config.num_heads > 0 else max(1, channels // config.num_head_channels)
        width = config.context_dim or config.channels[-1]
        sizes: dict[str, Any] = {"depth": depth, "context_dim": width, "use_linear": config.use_linear}
        if self.config.is_video:
            sizes |= {"ff_in": VIDEO["extra_ff_mix_layer"], **{name: VIDEO[name] for name in ACROSS_FRAMES}}
            return SpatialVideoTransformer(channels, heads, channels // heads, operations=self._operations, **sizes, **META)
        return SpatialTransformer(channels, heads, channels // heads, operations=self._operations, **sizes, **META)
