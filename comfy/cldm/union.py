"""Union ControlNets: one network for several kinds of hint pictures (xinsir's ControlNet++ for SDXL).

The kind is told to the time embedding, and shifts the hint's features by what a small transformer makes of their mean.
"""

from collections.abc import Sequence
from typing import Any

import torch

import comfy.ops
from comfy.cldm.cldm import META, ControlNet
from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import timestep_embedding

HEADS = 8
KIND_WIDTH = 256
FAST_GELU = 1.702
MLP_EXPANSION = 4


class UnionControlNet(ControlNet):
    """A ControlNet that knows *kinds* kinds of hints; the other arguments are those of :class:`ControlNet`."""

    def __init__(
        self,
        kinds: int,
        hint_channels: int = 3,
        hint_widths: Sequence[int] = (16, 32, 96, 256),
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
        **unet_config: Any,
    ) -> None:
        super().__init__(hint_channels, hint_widths, dtype, device, operations, **unet_config)
        width = self.model_channels
        self.num_control_type = kinds
        self.task_embedding = torch.nn.Parameter(torch.empty(kinds, width, **META))
        self.transformer_layes = torch.nn.ModuleList([_Block(width, operations)])
        self.spatial_ch_projs = operations.Linear(width, width, **META)
        time_width = self.time_embed[-1].out_features
        self.control_add_embedding = torch.nn.ModuleDict(
            {
                "linear_1": operations.Linear(kinds * KIND_WIDTH, time_width, **META),
                "linear_2": operations.Linear(time_width, time_width, **META),
            }
        )
        self.requires_grad_(False).eval()

    def embedding(self, timesteps: torch.Tensor, x: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """Of the steps and of the kind in *options* (``control_type``: a list of one number, or of none where it is not told)."""
        chosen = torch.zeros(self.num_control_type, device=x.device)
        chosen[_numbers(options, self.num_control_type)] = 1.0
        told = timestep_embedding(chosen, KIND_WIDTH).to(x.dtype).reshape(1, -1)
        inner = torch.nn.functional.silu(self.control_add_embedding["linear_1"](told))
        moved: torch.Tensor = super().embedding(timesteps, x, options) + self.control_add_embedding["linear_2"](inner)
        return moved

    def hint_features(self, hint: torch.Tensor, emb: torch.Tensor, context: Any, options: dict[str, Any]) -> torch.Tensor:
        """Those of the stem, moved by what they are for the kind in *options*."""
        features = super().hint_features(hint, emb, context, options)
        for number in _numbers(options, self.num_control_type):
            token = (features.mean(dim=(2, 3)) + self.task_embedding[number].to(features)).unsqueeze(1)
            for block in self.transformer_layes:
                token = block(token)
            features = features + self.spatial_ch_projs(token[:, 0])[..., None, None]
        return features


class _Block(torch.nn.Module):
    """Attention and a two-layer network over normed tokens (B x tokens x *width*), each added to them."""

    def __init__(self, width: int, operations: Any) -> None:
        super().__init__()
        self.attn = torch.nn.ModuleDict(
            {"in_proj": operations.Linear(width, 3 * width, **META), "out_proj": operations.Linear(width, width, **META)}
        )
        self.ln_1, self.ln_2 = (operations.LayerNorm(width, **META) for _ in range(2))
        self.mlp = torch.nn.ModuleDict(
            {
                "c_fc": operations.Linear(width, MLP_EXPANSION * width, **META),
                "c_proj": operations.Linear(MLP_EXPANSION * width, width, **META),
            }
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens after this block."""
        query, key, value = self.attn["in_proj"](self.ln_1(tokens)).chunk(3, dim=-1)
        tokens = tokens + self.attn["out_proj"](optimized_attention(query, key, value, HEADS))
        inner = self.mlp["c_fc"](self.ln_2(tokens))
        moved: torch.Tensor = tokens + self.mlp["c_proj"](inner * torch.sigmoid(FAST_GELU * inner))
        return moved


def _numbers(options: dict[str, Any], known: int) -> list[int]:
    """The kind in *options* as a list of at most one. Raises ``ValueError`` for several, and for one that the network does not know."""
    chosen = list(options.get("control_type") or ())
    if len(chosen) > 1:
        raise ValueError(f"a union ControlNet takes one kind of hint, not {len(chosen)}; chain one ControlNet for each")
    if chosen and chosen[0] >= known:
        name = next((name for name, number in UNION_CONTROLNET_TYPES.items() if number == chosen[0]), chosen[0])
        raise ValueError(f"this union ControlNet knows {known} kinds of hints, and {name} is none of them; use a newer one (ProMax)")
    return chosen
