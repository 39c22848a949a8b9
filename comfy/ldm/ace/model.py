"""ACE-Step 1's network in ComfyUI's tree and published weight names.

Shapes: B batch, T places of a latent (of 8 channels and 16 rows), N tokens, C width of a token. Files also hold layers that compare it with
other models in training (``projectors``); they are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comfy.dit.network import DiffusionTransformer
from comfy.ldm.ace.ace_step15_layers import cast, kept
from comfy.ldm.ace.attention import EPS, LinearTransformerBlock, t2i_modulate
from comfy.ldm.ace.lyric_encoder import ConformerEncoder
from comfy.ldm.flux.layers import timestep_embedding
from comfy.placeholders import placeholders

TIME_CHANNELS = 256
GROUPS = 32


def angles_of_places(tokens: int, width: int, theta: float, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the places of *tokens* tokens, N x *width*, in *like*'s dtype; the second half repeats the first."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=like.device) / width)
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32, device=like.device), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, **made: Any) -> None:
        super().__init__()
        self.linear_1 = made["operations"].Linear(in_channels, time_embed_dim, **kept(made))
        self.linear_2 = made["operations"].Linear(time_embed_dim, time_embed_dim, **kept(made))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x in to B x C."""
        return self.linear_2(torch.nn.functional.silu(self.linear_1(sample)))


class PatchEmbed(torch.nn.Module):
    """A place of a latent, all its rows, becomes a token."""

    def __init__(self, patch_size: Sequence[int], in_channels: int, inner_channels: int, embed_dim: int, **made: Any) -> None:
        super().__init__()
        operations, patch = made["operations"], tuple(patch_size)
        self.early_conv_layers = torch.nn.Sequential(
            operations.Conv2d(in_channels, inner_channels, kernel_size=patch, stride=patch, **kept(made)),
            operations.GroupNorm(GROUPS, inner_channels, eps=EPS, **kept(made)),
            operations.Conv2d(inner_channels, embed_dim, kernel_size=1, **kept(made)),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """B x channels x rows x T to B x T x C."""
        return self.early_conv_layers(latent).flatten(2).transpose(1, 2)


class T2IFinalLayer(torch.nn.Module):
    """Tokens become places of a latent."""

    def __init__(self, hidden_size: int, patch_size: Sequence[int], out_channels: int, **made: Any) -> None:
        super().__init__()
        self.patch_size, self.out_channels = tuple(patch_size), out_channels
        self.norm_final = made["operations"].RMSNorm(hidden_size, eps=EPS, elementwise_affine=False)
        self.linear = made["operations"].Linear(hidden_size, patch_size[0] * patch_size[1] * out_channels, **kept(made))
        self.scale_shift_table = torch.nn.Parameter(torch.empty(2, hidden_size, **kept(made)))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """*x* B x N x C, *t* B x C: B x channels x rows x T."""
        shift, scale = (cast(self.scale_shift_table[None], t) + t[:, None]).chunk(2, dim=1)
        cells = self.linear(t2i_modulate(self.norm_final(x), shift, scale)).unflatten(-1, (*self.patch_size, self.out_channels))
        return cells.permute(0, 4, 2, 1, 3).flatten(3)


class ACEStepTransformer2DModel(DiffusionTransformer):
    """The network. Who sings, the tags and the lyrics are tokens that those of the latent attend to."""

    def __init__(
        self,
        in_channels: int = 8,
        num_layers: int = 24,
        attention_head_dim: int = 128,
        num_attention_heads: int = 20,
        mlp_ratio: float = 2.5,
        out_channels: int = 8,
        rope_theta: float = 1000000.0,
        speaker_embedding_dim: int = 512,
        text_embedding_dim: int = 768,
        lyric_encoder_vocab_size: int = 6693,
        lyric_hidden_size: int = 1024,
        patch_size: Sequence[int] = (16, 1),
        patch_channels: int = 2048,
        lyric_heads: int = 16,
        lyric_units: int = 4096,
        lyric_blocks: int = 6,
        audio_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        linear, width = operations.Linear, num_attention_heads * attention_head_dim
        self.dtype, self.inner_dim, self.rope_theta, self.attention_head_dim = dtype, width, rope_theta, attention_head_dim
        self.transformer_blocks = torch.nn.ModuleList(
            LinearTransformerBlock(width, num_attention_heads, attention_head_dim, mlp_ratio, **made) for _ in range(num_layers)
        )
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, width, **made)
        self.t_block = torch.nn.Sequential(torch.nn.SiLU(), linear(width, 6 * width, **kept(made)))
        self.speaker_embedder = linear(speaker_embedding_dim, width, **kept(made))
        self.genre_embedder = linear(text_embedding_dim, width, **kept(made))
        self.lyric_embs = operations.Embedding(lyric_encoder_vocab_size, lyric_hidden_size, **kept(made))
        self.lyric_encoder = ConformerEncoder(lyric_hidden_size, lyric_hidden_size, lyric_heads, lyric_units, lyric_blocks, **made)
        self.lyric_proj = linear(lyric_hidden_size, width, **kept(made))
        self.proj_in = PatchEmbed(patch_size, in_channels, patch_channels, width, **made)
        self.final_layer = T2IFinalLayer(width, patch_size, out_channels, **made)

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        speaker_embeds: torch.Tensor | None = None,
        lyric_token_idx: torch.Tensor | None = None,
        lyrics_strength: float = 1.0,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, speaker_embeds, lyric_token_idx, lyrics_strength, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        speaker_embeds: torch.Tensor | None = None,
        lyric_token_idx: torch.Tensor | None = None,
        lyrics_strength: float = 1.0,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x 8 x 16 x T, *timestep* B (0 to 1000), *context* B x N x 768 (the tags), *speaker_embeds* B x 512, *lyric_token_idx*
        B x tokens. Raises ``ValueError`` without lyrics.
        """
        if speaker_embeds is None or lyric_token_idx is None:
            raise ValueError("ACE-Step needs lyrics (empty ones will do): encode the text with TextEncodeAceStepAudio")
        options = dict(transformer_options or {})
        vector = self.timestep_embedder(timestep_embedding(timestep, TIME_CHANNELS, time_factor=1.0).to(x.dtype))
        modulation = self.t_block(vector)
        lyrics = self.lyric_proj(self.lyric_encoder(self.lyric_embs(lyric_token_idx, out_dtype=context.dtype))) * lyrics_strength
        asked = torch.cat((self.speaker_embedder(speaker_embeds)[:, None], self.genre_embedder(context), lyrics), dim=1)
        tokens = self.proj_in(x)
        own, others = (angles_of_places(part.shape[1], self.attention_head_dim, self.rope_theta, part) for part in (tokens, asked))
        options |= {"total_blocks": len(self.transformer_blocks), "block_type": "single"}
        for number, block in enumerate(self.transformer_blocks):
            options["block_index"] = number
            tokens = block(tokens, asked, own, others, modulation, options)
        return self.final_layer(tokens, vector)


__getattr__, __dir__ = placeholders(__name__, "ACE-Step models", "cross_norm() Qwen2RotaryEmbedding")
