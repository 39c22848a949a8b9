"""The layers of HunyuanVideo 1.5 that it does not share with Flux, in ComfyUI's tree and weight names.

Shapes: B batch, T tokens of text, C width of a token.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.flux.layers import MLPEmbedder, timestep_embedding

Options = dict[str, Any]
TIME_CHANNELS = 256
EPS = 1e-6


class SelfAttentionRef(torch.nn.Module):
    """The projections of a refiner's attention; the block attends."""

    def __init__(self, dim: int, qkv_bias: bool = False, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.qkv = operations.Linear(dim, dim * 3, bias=qkv_bias, dtype=dtype, device=device)
        self.proj = operations.Linear(dim, dim, dtype=dtype, device=device)


class TokenRefinerBlock(torch.nn.Module):
    """Attention of the text to itself and a feed-forward layer, both gated by the time and the text as a whole."""

    def __init__(self, hidden_size: int, heads: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.heads = heads
        gates = operations.Linear(hidden_size, 2 * hidden_size, **kept)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), gates)
        self.norm1, self.norm2 = (operations.LayerNorm(hidden_size, eps=EPS, elementwise_affine=True, **kept) for _ in range(2))
        self.self_attn = SelfAttentionRef(hidden_size, True, operations=operations, **kept)
        widening, narrowing = (
            operations.Linear(*sizes, **kept) for sizes in ((hidden_size, 4 * hidden_size), (4 * hidden_size, hidden_size))
        )
        self.mlp = torch.nn.Sequential(widening, torch.nn.SiLU(), narrowing)

    def forward(
        self, x: torch.Tensor, c: torch.Tensor, mask: torch.Tensor | None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* B x T x C, *c* B x C, *mask* added to the scores (B x 1 x T x T)."""
        first, second = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=-1)
        query, key, value = self.self_attn.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = comfy.ldm.modules.attention.optimized_attention(
            query, key, value, self.heads, mask=mask, skip_reshape=True, transformer_options=transformer_options or {}
        )
        x = x + self.self_attn.proj(attended) * first
        return x + self.mlp(self.norm2(x)) * second


class IndividualTokenRefiner(torch.nn.Module):
    """Several such blocks, under one mask."""

    def __init__(
        self, hidden_size: int, heads: int, num_blocks: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(TokenRefinerBlock(hidden_size, heads, dtype, device, operations) for _ in range(num_blocks))

    def forward(
        self, x: torch.Tensor, c: torch.Tensor, mask: torch.Tensor | None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*mask*: B x T, what is added to the scores of each token."""
        scores = None
        if mask is not None:
            columns = mask[:, None, None].expand(-1, 1, mask.shape[1], -1)
            scores = columns + columns.transpose(2, 3)
        for block in self.blocks:
            x = block(x, c, scores, transformer_options)
        return x


class TokenRefiner(torch.nn.Module):
    """Text as the text encoder gives it, to tokens of the network's width."""

    def __init__(
        self, text_dim: int, hidden_size: int, heads: int, num_blocks: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        made = {"dtype": dtype, "device": device, "operations": operations}
        self.input_embedder = operations.Linear(text_dim, hidden_size, dtype=dtype, device=device)
        self.t_embedder = MLPEmbedder(TIME_CHANNELS, hidden_size, **made)
        self.c_embedder = MLPEmbedder(text_dim, hidden_size, **made)
        self.individual_token_refiner = IndividualTokenRefiner(hidden_size, heads, num_blocks, **made)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, mask: torch.Tensor | None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* B x T x width of the text encoder, *timesteps* B (0 to 1000); the mean in half precision is made in float32."""
        time = self.t_embedder(timestep_embedding(timesteps, TIME_CHANNELS, time_factor=1.0).to(x.dtype))
        whole = (x.float() if x.dtype == torch.float16 else x).mean(dim=1).to(x.dtype)
        return self.individual_token_refiner(self.input_embedder(x), time + self.c_embedder(whole), mask, transformer_options)


class ByT5Mapper(torch.nn.Module):
    """What ByT5 makes of texts to be written in the picture, as tokens of the network's width."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden_dim: int,
        out_dim1: int,
        use_res: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.layernorm = operations.LayerNorm(in_dim, **kept)
        self.fc1 = operations.Linear(in_dim, hidden_dim, **kept)
        self.fc2 = operations.Linear(hidden_dim, out_dim, **kept)
        self.fc3 = operations.Linear(out_dim, out_dim1, **kept)
        self.use_res = use_res

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out); with *use_res* both are as wide, and are added."""
        mapped = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(self.layernorm(x))))))
        return mapped + x if self.use_res else mapped


class VideoPatches(torch.nn.Module):
    """Patches of a latent as tokens."""

    def __init__(
        self, patch_size: Sequence[int], in_chans: int, embed_dim: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = operations.Conv3d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width to B x tokens x C; sides are padded to whole patches."""
        return self.proj(pad_to_patch_size(x, self.patch_size)).flatten(2).transpose(1, 2)
