"""The ControlNet of Stable Diffusion 1.x and SDXL: the input half of a UNet that sees a hint picture (Zhang et al., arXiv:2302.05543).

The walk is the UNet's own (:mod:`comfy.ldm.modules.diffusionmodules.openaimodel`), the tree and the paths of parameters are the
published ones.
"""

from collections.abc import Sequence
from typing import Any

import torch

import comfy.ops
from comfy.families.sd_unet_config import unet_config_from_dict
from comfy.ldm.modules.diffusionmodules.openaimodel import InputHalf, TimestepEmbedSequential, timestep_embedding
from comfy.ldm.modules.diffusionmodules.unet_blocks import UNetBlocks

META: dict[str, Any] = {"device": "meta"}


class ControlNet(InputHalf):
    """The network with the sizes of ComfyUI's ``unet_config``, for hint pictures of *hint_channels* channels.

    Parameters are on the meta device at first. *hint_widths* are the channels of the hint's stem (``input_hint_block``), from picture
    size down to latent size. ``zero_convs`` holds one projection per input block, ``middle_block_out`` the middle's.
    """

    def __init__(
        self,
        hint_channels: int = 3,
        hint_widths: Sequence[int] = (16, 32, 96, 256),
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
        **unet_config: Any,
    ) -> None:
        blocks = UNetBlocks(unet_config_from_dict(unet_config), operations)
        super().__init__(unet_config, dtype, device, blocks)
        widths = blocks.skip_channels
        self.input_hint_block = self._hint_block(hint_channels, hint_widths, operations)
        self.zero_convs = torch.nn.ModuleList(self.make_zero_conv(width, operations) for width in widths)
        self.middle_block_out = self.make_zero_conv(widths[-1], operations)
        self.requires_grad_(False).eval()

    def make_zero_conv(self, channels: int, operations: Any = comfy.ops.disable_weight_init, **kwargs: Any) -> TimestepEmbedSequential:
        """A block of one 1x1 convolution, as residuals pass."""
        return TimestepEmbedSequential(operations.conv_nd(2, channels, channels, 1, **{**META, **kwargs}))

    def _hint_block(self, channels: int, widths: Sequence[int], operations: Any) -> TimestepEmbedSequential:
        def convolution(channels_in: int, channels_out: int, stride: int = 1) -> torch.nn.Module:
            return operations.conv_nd(2, channels_in, channels_out, 3, padding=1, stride=stride, **META)

        layers = [convolution(channels, widths[0])]
        for width, wider in zip(widths, widths[1:]):
            layers += [convolution(width, width), convolution(width, wider, 2)]
        layers.append(convolution(widths[-1], self.model_channels))
        activated = [layer for pair in zip(layers, (torch.nn.SiLU(inplace=True) for _ in layers)) for layer in pair]
        return TimestepEmbedSequential(*activated[:-1])

    def embedding(self, timesteps: torch.Tensor, x: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """B×width, in the dtype of *x*, of the steps; *options* are further arguments of :meth:`forward`."""
        return self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))

    def hint_features(self, hint: torch.Tensor, emb: torch.Tensor, context: Any, options: dict[str, Any]) -> torch.Tensor:
        """What is added to the first block's output: *hint* after the stem. *options* are further arguments of :meth:`forward`."""
        return self.input_hint_block(hint, emb, context)

    def forward(
        self, x: torch.Tensor, hint: torch.Tensor, timesteps: torch.Tensor, context: Any, y: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, list[torch.Tensor]]:
        """Residuals for a UNet: ``output`` (one per input block) and ``middle``.

        *x* B×C×H×W, *hint* B×channels×8H×8W in 0…1, *context* B×tokens×width, *y* B×vector width (SDXL). Raises ``ValueError``
        when *y* is missing.
        """
        emb = self.embedding(timesteps, x, kwargs)
        if self.num_classes is not None:
            if y is None:
                raise ValueError("this ControlNet is made for SDXL, but the model has no vector conditioning (SD 1.x); use one made for it")
            emb = emb + self.label_emb(y)
        options: dict[str, Any] = {}
        residuals = []
        h = x
        for number, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs)):
            h = block(h, emb, context, options)
            if number == 0:
                h = h + self.hint_features(hint, emb, context, kwargs)
            residuals.append(zero_conv(h, emb, context))
        h = self.middle_block(h, emb, context, options)
        return {"middle": [self.middle_block_out(h, emb, context)], "output": residuals}
