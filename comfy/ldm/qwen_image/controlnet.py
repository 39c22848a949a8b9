"""ControlNets for Qwen-Image: InstantX's, with blocks and layers of its own, and Alibaba's "Fun", which borrows the model's first layers.

Shapes: B batch, I tokens of the picture, T tokens of text, C width of a token.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from comfy.ldm.qwen_image.layers import QwenImageTransformerBlock
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

MODEL_BLOCKS = 60  # of the published models, over which the residuals are spread
FUN_BLOCKS = 5
FUN_PLACES = tuple(range(0, MODEL_BLOCKS, MODEL_BLOCKS // FUN_BLOCKS))  # the blocks after which Fun's residuals are added
PATCH_VALUES = 4  # of one channel in a token


def as_video(latent: torch.Tensor) -> torch.Tensor:
    """*latent* as B x channels x frames x height x width; pictures have one frame."""
    return latent.unsqueeze(2) if latent.ndim == 4 else latent


class QwenImageControlNetModel(QwenImageTransformer2DModel):
    """InstantX's: a Qwen-Image without last layers whose tokens begin as those of the noisy latent plus those of the hint's.

    *extra_condition_channels*: how many values of a token of the hint are its mask's. ``control_settings``: what the control is made with.
    """

    source_name = ""  # the file it comes from
    control_settings: dict[str, Any]

    def __init__(self, extra_condition_channels: int = 0, **settings: Any) -> None:
        super().__init__(**{**settings, "final_layer": False})
        placed = {"dtype": settings.get("dtype"), "device": settings.get("device")}
        linear, width = settings["operations"].Linear, self.inner_dim
        self.main_model_double = MODEL_BLOCKS
        self.controlnet_blocks = torch.nn.ModuleList(linear(width, width, **placed) for _ in self.transformer_blocks)
        self.controlnet_x_embedder = linear(self.in_channels + extra_condition_channels, width, **placed)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, hint: torch.Tensor, **kwargs: Any
    ) -> dict[str, list[torch.Tensor]]:
        """{"input": residuals for the model's blocks}, each B x I x C, for latents *x* and the hint's latent *hint*, with its mask if any.

        *timesteps*: B, 0 to 1. *context*: B x T x width of the text encoder.
        """
        tokens, places, _ = self.process_img(x)
        rotations = self.pe_embedder(torch.cat((self._text_places(x, context), places), dim=1)).to(x.dtype).contiguous()
        image = self.img_in(tokens) + self.controlnet_x_embedder(self.process_img(as_video(hint))[0])
        text = self.txt_in(self.txt_norm(context))
        time = self.time_text_embed(timesteps, image)
        repeat = math.ceil(self.main_model_double / len(self.controlnet_blocks))
        residuals: list[torch.Tensor] = []
        for block, projection in zip(self.transformer_blocks, self.controlnet_blocks):
            text, image = block(image, text, None, time, rotations)
            residuals += [projection(image)] * repeat
        return {"input": residuals[: self.main_model_double]}


class QwenImageFunControlBlock(QwenImageTransformerBlock):
    """A block of Fun's: its output is also projected to a residual; the first projects what it gets (*has_before_proj*)."""

    before_proj: torch.nn.Module
    after_proj: torch.nn.Module

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        has_before_proj: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__(dim, num_attention_heads, attention_head_dim, dtype=dtype, device=device, operations=operations)
        self.has_before_proj = has_before_proj
        if has_before_proj:
            self.before_proj = operations.Linear(dim, dim, dtype=dtype, device=device)
        self.after_proj = operations.Linear(dim, dim, dtype=dtype, device=device)


class QwenImageFunControlNetModel(torch.nn.Module):
    """Alibaba's: some blocks, which see the text and the picture as the model's own first layers give them.

    A token of its hint has *control_in_features* values: of the hint's latent, of a mask, and of the latent of a picture to fill in; what
    is not given is zero. ``control_settings`` is what the control is made with.
    """

    source_name = ""  # the file it comes from
    control_settings: dict[str, Any]

    def __init__(
        self,
        control_in_features: int = 132,
        inner_dim: int = 3072,
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        num_control_blocks: int = FUN_BLOCKS,
        main_model_double: int = MODEL_BLOCKS,
        injection_layers: Sequence[int] = FUN_PLACES,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.dtype, self.main_model_double, self.injection_layers = dtype, main_model_double, tuple(injection_layers)
        self.hint_channels = control_in_features // PATCH_VALUES
        self.control_img_in = operations.Linear(control_in_features, inner_dim, dtype=dtype, device=device)
        self.control_blocks = torch.nn.ModuleList(
            QwenImageFunControlBlock(inner_dim, num_attention_heads, attention_head_dim, number == 0, dtype, device, operations)
            for number in range(num_control_blocks)
        )

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, hint: torch.Tensor, base_model: Any, **kwargs: Any
    ) -> dict[str, list[torch.Tensor | None]]:
        """{"input": for each of the model's blocks a residual B x I x C or None}; arguments as for :class:`QwenImageControlNetModel`.

        *base_model* is the sampled network, whose first layers are used.
        """
        control = base_model.process_img(self._filled(as_video(hint)))[0]
        tokens, places, _ = base_model.process_img(x)
        length = min(tokens.shape[1], control.shape[1])  # a hint of one frame steers the first of several
        text_places = base_model._text_places(x, context)
        rotations = base_model.pe_embedder(torch.cat((text_places, places[:, :length]), dim=1)).to(x.dtype).contiguous()
        image = base_model.img_in(tokens[:, :length])
        text = base_model.txt_in(base_model.txt_norm(context))
        time = base_model.time_text_embed(timesteps, image)
        control = self.control_img_in(control[:, :length])
        residuals: list[torch.Tensor | None] = [None] * self.main_model_double
        blocks: Any = self.control_blocks
        for block, place in zip(blocks, self.injection_layers):
            if block.has_before_proj:
                control = block.before_proj(control) + image
            text, control = block(control, text, None, time, rotations)
            residuals[place] = block.after_proj(control)
        return {"input": residuals}

    def _filled(self, hint: torch.Tensor) -> torch.Tensor:
        """*hint* with as many channels as are expected and whole patches; what is missing is zero (a model's latent goes round)."""
        height, width = hint.shape[-2:]
        missing = self.hint_channels - hint.shape[1]
        return torch.nn.functional.pad(hint, (0, width % 2, 0, height % 2, 0, 0, 0, missing))  # also cuts, where that is below 0
