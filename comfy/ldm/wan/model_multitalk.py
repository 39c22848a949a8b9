"""MultiTalk's and InfiniteTalk's networks: what is heard as tokens, and each block's attention to it, in ComfyUI's weight names.

Shapes: B batch, P people, F frames of latents, S tokens of a frame, H heads, D width of a head, T tokens of what is heard in a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import comfy.ldm.modules.attention

AROUND = 5  # times of sound around a frame; a frame of latents has four, heard together
FRAMES_PER_CELL = 4
HEADS = 40
TOKENS = 32
# Places of two people and of what is neither, on a line: the tokens of a video are placed by how much they are like a person's.
PLACES, BETWEEN = ((0.0, 4.0), (20.0, 24.0)), 12.0
LOWEST = 1e-8
PIECES = 8  # in which likenesses are computed


class MultiTalkAudioProjModel(torch.nn.Module):
    """What is heard around frames, as tokens. *heard*: values at a time, of all layers of the audio encoder."""

    def __init__(self, heard: int, intermediate_dim: int, out_dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.seq_len = AROUND
        self.proj1 = operations.Linear(AROUND * heard, intermediate_dim, **kept)
        self.proj1_vf = operations.Linear((AROUND + FRAMES_PER_CELL - 1) * heard, intermediate_dim, **kept)
        self.proj2 = operations.Linear(intermediate_dim, intermediate_dim, **kept)
        self.proj3 = operations.Linear(intermediate_dim, TOKENS * out_dim, **kept)
        self.norm = operations.LayerNorm(out_dim, **kept)

    def forward(self, audio_embeds: torch.Tensor, audio_embeds_vf: torch.Tensor) -> torch.Tensor:
        """P x 1 x 5 x layers x channels of the first frame and P x (F - 1) x 8 x layers x channels to P x F x 32 x width."""
        first, later = torch.relu(self.proj1(audio_embeds.flatten(2))), torch.relu(self.proj1_vf(audio_embeds_vf.flatten(2)))
        heard = torch.relu(self.proj2(torch.cat((first, later), dim=1)))
        return self.norm(self.proj3(heard).unflatten(-1, (TOKENS, -1)))


def heard_around(states: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """*states* (times x layers x channels) around the times *start* to *end*, with the first in place of those behind the last.

    (end - start) x 5 x layers x channels.
    """
    around = torch.arange(start, end)[:, None] + torch.arange(AROUND) - AROUND // 2
    around = around.clamp(0, max(len(states), end) - 1)
    return states[around.masked_fill(around >= len(states), 0).to(states.device)]


def project_audio_features(audio_proj: Any, encoded_audio: Sequence[torch.Tensor], audio_start: int, audio_end: int) -> torch.Tensor:
    """What each person of *encoded_audio* (times x layers x channels) says in those frames of a video: 1 x F x (P·32) x width."""
    heard = torch.stack([heard_around(states, audio_start, audio_end) for states in encoded_audio])
    later = heard[:, 1:].unflatten(1, (-1, FRAMES_PER_CELL))
    middle = AROUND // 2
    together = torch.cat((later[:, :, 0, : middle + 1], later[:, :, 1:-1, middle], later[:, :, -1, middle:]), dim=2)
    return torch.cat(audio_proj(heard[:, :1], together).split(1), dim=2)


def likeness(query: torch.Tensor, key: torch.Tensor, tokens: int, masks: torch.Tensor) -> torch.Tensor:
    """How much each token looks at each person in the first frame: P x B x N.

    *query*, *key* B x N x H x D; *tokens* of the first frame; *masks* P x tokens, true where the person is.
    """
    heads = query.shape[2] // 2 * 2  # as in ComfyUI, which takes halves
    query = query[:, :, :heads].transpose(1, 2) * query.shape[-1] ** -0.5
    reference = key[:, :tokens, :heads].permute(0, 2, 3, 1)
    shares = masks.to(query).T / (masks.sum(dim=1).to(query) + LOWEST)
    piece = max(query.shape[2] // PIECES, 1)
    found = [((part @ reference).softmax(dim=-1) @ shares).mean(dim=1) for part in query.split(piece, dim=2)]
    return torch.cat(found, dim=1).movedim(-1, 0)


def places(likenesses: torch.Tensor) -> torch.Tensor:
    """B x N places of tokens by the person that each looks at most; *likenesses* P x B x N."""
    people = [
        (own - own.min()) / (own.max() - own.min() + LOWEST) * (last - first) + first
        for own, (first, last) in zip(likenesses, PLACES, strict=False)
    ]
    line = torch.stack([*people, torch.full_like(people[0], BETWEEN)])
    most = likenesses.argmax(dim=0).clamp(max=len(PLACES))
    return line.gather(0, most[None])[0]


def turned(x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """*x* (… x S x D) with pairs of its values turned by *position* (… x S)."""
    width = x.shape[-1]
    speeds = 1.0 / (10000 ** (torch.arange(0, width, 2, device=x.device).float() / width))
    angles = position.float()[..., None] * speeds
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack((first * cosine - second * sine, second * cosine + first * sine), dim=-1).flatten(-2).to(x.dtype)


class SingleStreamMultiAttention(torch.nn.Module):
    """Attention of a frame's tokens to what is heard meanwhile."""

    def __init__(self, dim: int, encoder_hidden_states_dim: int, num_heads: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.q_linear = operations.Linear(dim, dim, **kept)
        self.proj = operations.Linear(dim, dim, **kept)
        self.kv_linear = operations.Linear(encoder_hidden_states_dim, dim * 2, **kept)

    def forward(
        self, x: torch.Tensor, encoder_hidden_states: torch.Tensor, shape: Sequence[int], x_ref_attn_map: torch.Tensor | None = None
    ) -> torch.Tensor:
        """*x* B x N x C; *encoder_hidden_states* 1 x F x T x width; *shape* frames, rows, columns; *x_ref_attn_map* P x B x N.

        Tokens behind the frames that are heard get zeros.
        """
        batch, count, _ = x.shape
        frames, per_frame = encoder_hidden_states.shape[1], shape[1] * shape[2]
        own = frames * per_frame
        if own > count:
            raise ValueError(f"the sound is of {frames} frames of latents; the video has {count // per_frame}")
        query = (
            self.q_linear(x[:, :own]).unflatten(1, (frames, per_frame)).flatten(0, 1).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        )
        both = self.kv_linear(encoder_hidden_states[0].to(x)).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        key, value = both.repeat(1, batch, 1, 1, 1).unbind(0)
        if x_ref_attn_map is not None and len(x_ref_attn_map) > 1:
            placed = places(x_ref_attn_map)[:, :own].reshape(batch * frames, 1, per_frame)
            query = turned(query, placed)
            middles = [sum(place) / 2 for place in PLACES]
            said = torch.full((key.shape[2],), middles[1], device=key.device)
            said[: len(said) // 2] = middles[0]
            key = turned(key, said)
        heard = comfy.ldm.modules.attention.optimized_attention(query, key, value, heads=self.num_heads, skip_reshape=True)
        heard = self.proj(heard).reshape(batch, own, -1)
        return torch.nn.functional.pad(heard, (0, 0, 0, count - own))


class WanMultiTalkAttentionBlock(torch.nn.Module):
    """That attention of a block, and the norm before it."""

    def __init__(self, in_dim: int, out_dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.audio_cross_attn = SingleStreamMultiAttention(in_dim, out_dim, HEADS, operations=operations, **kept)
        self.norm_x = operations.LayerNorm(in_dim, **kept)


class MultiTalkModelPatch(torch.nn.Module):
    """The network of a file: of *num_layers* blocks of width *in_dim*."""

    source_name = ""

    def __init__(
        self, *, heard: int, intermediate_dim: int, in_dim: int, out_dim: int, num_layers: int, operations: Any = None, **kept: Any
    ) -> None:
        super().__init__()
        self.in_dim, self.heard = in_dim, heard
        kept["operations"] = operations
        self.audio_proj = MultiTalkAudioProjModel(heard, intermediate_dim, out_dim, **kept)
        self.blocks = torch.nn.ModuleList(WanMultiTalkAttentionBlock(in_dim, out_dim, **kept) for _ in range(num_layers))
