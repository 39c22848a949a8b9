"""Stability's ControlNets for Stable Diffusion 3.5 large: blocks over the picture's tokens alone, after each of which a residual is taken.

They leave one layer out, which is the sampled model's own: see :class:`comfy.control.sd35.ControlNetSD35`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

import comfy.ops
from comfy.ldm.modules.diffusionmodules.mmdit_layers import (
    DismantledBlock,
    PatchEmbed,
    TimestepEmbedder,
    VectorEmbedder,
    get_2d_sincos_pos_embed_torch,
)


class ControlNetEmbedder(torch.nn.Module):
    """The network. With *double_y_emb* the pooled text passes the model's embedder and one of its own, and every block sees the same
    tokens; else the tokens come from the model's embedder of patches and pass the blocks in turn.

    *main_model_double* is how many blocks the sampled model has. ``dtype`` is the dtype its weights are kept in, ``control_settings`` what
    the control around it is made with.
    """

    control_settings: dict[str, Any]

    def __init__(
        self,
        *,
        num_layers: int,
        main_model_double: int,
        num_attention_heads: int,
        attention_head_dim: int,
        patch_size: int,
        in_chans: int,
        double_y_emb: bool,
        adm_in_channels: int,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"operations": operations or comfy.ops.disable_weight_init, **kept}
        self.dtype, self.patch_size, self.double_y_emb, self.main_model_double = (
            kept.get("dtype"),
            patch_size,
            double_y_emb,
            main_model_double,
        )
        self.hidden_size = width = num_attention_heads * attention_head_dim
        if double_y_emb:
            self.x_embedder = PatchEmbed(None, patch_size, in_chans, width, **made)
        self.t_embedder = TimestepEmbedder(width, **made)
        self.y_embedder = VectorEmbedder(width if double_y_emb else adm_in_channels, width, **made)
        self.transformer_blocks = torch.nn.ModuleList(
            DismantledBlock(width, num_attention_heads, qkv_bias=True, **made) for _ in range(num_layers)
        )
        linear = made["operations"].Linear
        self.controlnet_blocks = torch.nn.ModuleList(linear(width, width, **kept) for _ in range(num_layers))
        self.pos_embed_input = PatchEmbed(None, patch_size, in_chans, width, **made)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        y: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        hint: torch.Tensor | None = None,
        borrowed: Any = None,
    ) -> dict[str, list[torch.Tensor]]:
        """{"output": residuals for the model's blocks} for latents *x*, at *timesteps* (0…1000); *hint* is the hint's latent.

        *borrowed* is the model's layer that is left out here.
        """
        height, width = x.shape[-2:]
        if self.double_y_emb:
            tokens = self.x_embedder(x)
        else:
            rows, columns = ((length + 1) // self.patch_size for length in (height, width))
            tokens = borrowed(x) + get_2d_sincos_pos_embed_torch(self.hidden_size, columns, rows, device=x.device).to(x.dtype)
        modulation = self.t_embedder(timesteps, dtype=tokens.dtype)
        if y is not None:
            modulation = modulation + self.y_embedder(borrowed(y) if self.double_y_emb else y)
        tokens = tokens + self.pos_embed_input(hint)
        repeat = math.ceil(self.main_model_double / len(self.transformer_blocks))
        residuals: list[torch.Tensor] = []
        for block, projection in zip(self.transformer_blocks, self.controlnet_blocks):
            out = block(tokens, modulation)
            tokens = tokens if self.double_y_emb else out
            residuals += [projection(out)] * repeat
        return {"output": residuals}
