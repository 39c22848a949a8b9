"""The ControlNet of Stable Diffusion 1.x and SDXL: the input half of a UNet that sees a hint picture (Zhang et al., arXiv:2302.05543).

diffusers' layers hold the parameters; the walk is the UNet's own (:mod:`comfy.ldm.modules.diffusionmodules.openaimodel`).
"""

from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

import comfy.ops
from comfy.families.sd_unet_config import UNetConfig
from comfy.ldm.modules.diffusionmodules.openaimodel import InputHalf, adopt_blocks, forward_timestep_embed, timestep_embedding

PARTS = (
    "conv_in",
    "time_embedding",
    "add_embedding",
    "controlnet_cond_embedding",
    "down_blocks",
    "mid_block",
    "controlnet_down_blocks",
    "controlnet_mid_block",
)
UNET_ONLY = ("out_channels", "up_block_types")


class ControlNet(InputHalf):
    """The network for *config*, with hint pictures of *hint_channels* channels; parameters are on the meta device at first.

    *hint_widths* are the channels of the hint's stem, from picture size down to latent size.
    """

    controlnet_down_blocks: Any
    controlnet_mid_block: Any
    controlnet_cond_embedding: Any

    def __init__(
        self,
        config: UNetConfig,
        hint_channels: int = 3,
        hint_widths: tuple[int, ...] = (16, 32, 96, 256),
        dtype: torch.dtype = torch.float32,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        super().__init__()
        self.config = config
        self.dtype = dtype
        self.model_channels = config.model_channels
        self.num_classes = None if config.adm_in_channels is None else "sequential"
        arguments = {name: value for name, value in config.diffusers_arguments().items() if name not in UNET_ONLY}
        with torch.device("meta"):
            built = ControlNetModel(**arguments, conditioning_channels=hint_channels, conditioning_embedding_out_channels=hint_widths)
        adopt_blocks(built, operations)
        for name in PARTS:
            layer = getattr(built, name, None)
            if layer is not None:
                setattr(self, name, layer)
        self.requires_grad_(False).eval()

    def forward(
        self, x: torch.Tensor, hint: torch.Tensor, timesteps: torch.Tensor, context: Any, y: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, list[torch.Tensor]]:
        """Residuals for a UNet: ``output`` (one per input block) and ``middle``.

        *x* B×C×H×W, *hint* B×channels×8H×8W in 0…1, *context* B×tokens×width, *y* B×vector width (SDXL). Raises ``ValueError``
        when *y* is missing.
        """
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        if self.num_classes is not None:
            if y is None:
                raise ValueError("this ControlNet is made for SDXL, but the model has no vector conditioning (SD 1.x); use one made for it")
            emb = emb + self.label_emb(y)
        options: dict[str, Any] = {}
        residuals = []
        h = x
        for number, (block, zero_conv) in enumerate(zip(self.input_blocks, self.controlnet_down_blocks)):
            h = forward_timestep_embed(block, h, emb, context, options)
            if number == 0:
                h = h + self.controlnet_cond_embedding(hint)
            residuals.append(zero_conv(h))
        h = forward_timestep_embed(self.middle_block, h, emb, context, options)
        return {"middle": [self.controlnet_mid_block(h)], "output": residuals}
