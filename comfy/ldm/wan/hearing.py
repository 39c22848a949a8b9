"""What Wan 2.2's S2V hears, how its blocks attend to it, and how it sees the frames before; in ComfyUI's tree and published weight names.

Shapes: B batch, F frames of latents, N tokens, C width of a token, S steps of sound (four to a frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management
from comfy.ldm.wan.layers import WanT2VCrossAttention

EPS = 1e-6
BUCKETS = (16, 2, 1)  # frames before, from the farthest on: seen four times as coarsely, twice, and as they are


def _cast(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return comfy.model_management.cast_to(parameter, dtype=like.dtype, device=like.device)


class CausalConv1d(torch.nn.Module):
    """A convolution that sees nothing later; before the beginning is what it begins with."""

    def __init__(self, chan_in: int, chan_out: int, stride: int = 1, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.conv = operations.Conv1d(chan_in, chan_out, 3, stride=stride, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x S x in to B x S' x out."""
        return self.conv(F.pad(x.transpose(1, 2), (2, 0), mode="replicate")).transpose(1, 2)


class MotionEncoder_tc(torch.nn.Module):  # noqa: N801 - ComfyUI's name
    """Steps of sound become frames: several tokens each, and one of the whole."""

    def __init__(self, in_dim: int, hidden_dim: int, num_heads: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        self.num_heads = num_heads
        self.conv1_local = CausalConv1d(in_dim, hidden_dim // 4 * num_heads, **made)
        self.conv1_global = CausalConv1d(in_dim, hidden_dim // 4, **made)
        self.conv2 = CausalConv1d(hidden_dim // 4, hidden_dim // 2, 2, **made)
        self.conv3 = CausalConv1d(hidden_dim // 2, hidden_dim, 2, **made)
        self.final_linear = operations.Linear(hidden_dim, hidden_dim, **kept)
        self.padding_tokens = torch.nn.Parameter(torch.empty(1, 1, 1, hidden_dim, **kept))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """B x S x in to (B x F x 1 x C, B x F x tokens x C)."""
        local = self.conv1_local(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).flatten(0, 1)
        local = self._as_frames(local).unflatten(0, (len(x), self.num_heads)).transpose(1, 2)
        padding = _cast(self.padding_tokens, local).expand(*local.shape[:2], -1, -1)
        whole = self.final_linear(self._as_frames(self.conv1_global(x)))
        return whole[:, :, None], torch.cat((local, padding), dim=2)

    def _as_frames(self, x: torch.Tensor) -> torch.Tensor:
        for widen in (self.conv2, self.conv3):
            x = widen(_activated(x))
        return _activated(x)


def _activated(x: torch.Tensor) -> torch.Tensor:
    return F.silu(F.layer_norm(x, x.shape[-1:], eps=EPS))


class CausalAudioEncoder(torch.nn.Module):
    """The states of an audio encoder, weighed layer by layer, become frames."""

    def __init__(self, dim: int, num_layers: int, out_dim: int, num_token: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.encoder = MotionEncoder_tc(dim, out_dim, num_token, operations=operations, **kept)
        self.weights = torch.nn.Parameter(torch.empty((1, num_layers, 1, 1), **kept))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """B x layers x width x S: what :class:`MotionEncoder_tc` gives."""
        weights = F.silu(_cast(self.weights, features))
        mean = (features * weights / weights.sum(dim=1, keepdim=True)).sum(dim=1)
        return self.encoder(mean.transpose(1, 2))


class AdaLayerNorm(torch.nn.Module):
    """Normalisation that what is heard shifts and scales."""

    def __init__(self, embedding_dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.linear = operations.Linear(embedding_dim, embedding_dim * 2, **kept)

    def forward(self, x: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        """*x* B x N x C, *temb* B x C."""
        shift, scale = self.linear(F.silu(temb))[:, None].chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift


class AudioInjector_WAN(torch.nn.Module):  # noqa: N801 - ComfyUI's name
    """After each block of *inject_layer*, attention of a frame's tokens to what is heard meanwhile."""

    def __init__(self, dim: int, num_heads: int, inject_layer: Sequence[int], operations: Any = None, **kept: Any) -> None:
        super().__init__()
        settings = {"operations": operations, **kept}
        self.injected_block_id = {block: number for number, block in enumerate(inject_layer)}
        count = range(len(inject_layer))
        self.injector = torch.nn.ModuleList(WanT2VCrossAttention(dim, num_heads, operation_settings=settings) for _ in count)
        self.injector_adain_layers = torch.nn.ModuleList(AdaLayerNorm(dim, operations=operations, **kept) for _ in count)

    def forward(
        self, x: torch.Tensor, block_id: int, audio_emb: torch.Tensor, audio_emb_global: torch.Tensor, seq_len: int
    ) -> torch.Tensor:
        """*x* B x N x C, of which the first *seq_len* tokens are the video's; *audio_emb* B x F x tokens x C, *audio_emb_global* the same
        with one token."""
        number = self.injected_block_id.get(block_id)
        if number is None:
            return x
        frames = x[:, :seq_len].unflatten(1, (audio_emb.shape[1], -1)).flatten(0, 1)
        told = self.injector_adain_layers[number](frames, audio_emb_global.flatten(0, 1)[:, 0])
        heard = self.injector[number](told, audio_emb.flatten(0, 1)).unflatten(0, (len(x), -1)).flatten(1, 2)
        return torch.cat((x[:, :seq_len] + heard, x[:, seq_len:]), dim=1)


class FramePackMotioner(torch.nn.Module):
    """The frames before the video as tokens, the farther the coarser."""

    def __init__(self, channels: int, inner_dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.proj = operations.Conv3d(channels, inner_dim, (1, 2, 2), (1, 2, 2), **kept)
        self.proj_2x = operations.Conv3d(channels, inner_dim, (2, 4, 4), (2, 4, 4), **kept)
        self.proj_4x = operations.Conv3d(channels, inner_dim, (4, 8, 8), (4, 8, 8), **kept)

    def forward(self, motion_latents: torch.Tensor, rope_embedder: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """*motion_latents* B x channels x frames x height x width, of which the last 19 count; zeros stand for those that are not there.

        (tokens B x N x C, their rotations), by ``rope_encode`` of *rope_embedder*.
        """
        kept, side = motion_latents[:, :, -sum(BUCKETS) :], motion_latents.shape[-2:]
        whole = F.pad(kept, (0, 0, 0, 0, sum(BUCKETS) - kept.shape[2], 0))
        far, middle, near = whole.split(BUCKETS, dim=2)
        near, middle, far = self.proj(near), self.proj_2x(middle), self.proj_4x(far)
        places = {"device": kept.device, "dtype": kept.dtype}
        turns = [
            rope_embedder.rope_encode(1, *side, t_start=-1, **places),
            rope_embedder.rope_encode(1, *side, t_start=-3, steps_h=middle.shape[-2], steps_w=middle.shape[-1], **places),
            rope_embedder.rope_encode(4, *side, t_start=-19, steps_h=far.shape[-2], steps_w=far.shape[-1], **places),
        ]
        tokens = [part.flatten(2).transpose(1, 2) for part in (near, middle, far)]
        return torch.cat(tokens, dim=1), torch.cat(turns, dim=1)
