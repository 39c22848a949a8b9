"""ACE-Step 1.5: music from tags, lyrics, a timbre and codes of music. ComfyUI's tree and published weight names.

Shapes: B batch, T places of a latent, N tokens, C width of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.dit.network import DiffusionTransformer
from comfy.ldm.ace.ace_step15_layers import (
    TIME_CHANNELS,
    AceStepAttention,
    AceStepDiTLayer,
    AceStepEncoderLayer,
    TimestepEmbedding,
    cast,
    kept,
    rotations,
    window_mask,
)
from comfy.ldm.ace.music_codes import AceStepAudioTokenizer, AudioTokenDetokenizer
from comfy.ldm.ace.silence import get_silence_latent

__all__ = [
    "AceStepAttention",
    "AceStepAudioTokenizer",
    "AceStepConditionEncoder",
    "AceStepConditionGenerationModel",
    "AceStepDiTLayer",
    "AceStepDiTModel",
    "AceStepEncoderLayer",
    "AceStepLyricEncoder",
    "AceStepTimbreEncoder",
    "AudioTokenDetokenizer",
    "get_silence_latent",
]

LAST_CODE = 35847  # stands where there are fewer codes than the latent is long


@dataclass(kw_only=True)
class AceStep15Params:
    """The sizes of a network."""

    in_channels: int = 192
    hidden_size: int = 2048
    text_hidden_dim: int = 1024
    timbre_hidden_dim: int = 64
    audio_acoustic_hidden_dim: int = 64
    num_dit_layers: int = 24
    num_lyric_layers: int = 8
    num_timbre_layers: int = 4
    num_tokenizer_layers: int = 2
    num_detokenizer_layers: int = 2
    num_heads: int = 16
    num_kv_heads: int = 8
    head_dim: int = 128
    intermediate_size: int = 6144
    patch_size: int = 2
    pool_window_size: int = 5
    rms_norm_eps: float = 1e-6
    sliding_window: int = 128
    layer_types: Sequence[str] | None = None
    fsq_dim: int = 2048
    fsq_levels: Sequence[int] = (8, 8, 8, 5, 5, 5)
    encoder_hidden_size: int = 2048
    encoder_intermediate_size: int = 6144
    encoder_num_heads: int = 16


class AceStepLyricEncoder(torch.nn.Module):
    """Tokens of the lyrics, or the places of a sound, attend to each other."""

    def __init__(self, params: AceStep15Params, width: int, num_layers: int, **made: Any) -> None:
        super().__init__()
        hidden, eps = params.encoder_hidden_size, params.rms_norm_eps
        self.head_dim = params.head_dim
        self.embed_tokens = made["operations"].Linear(width, hidden, **kept(made))
        self.norm = made["operations"].RMSNorm(hidden, eps=eps, **kept(made))
        sizes = (hidden, params.encoder_num_heads, params.num_kv_heads, params.head_dim, params.encoder_intermediate_size, eps)
        self.layers = torch.nn.ModuleList(AceStepEncoderLayer(*sizes, **made) for _ in range(num_layers))

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """B x N x width to B x N x C."""
        tokens = self.embed_tokens(inputs_embeds)
        turns = rotations(tokens.shape[1], self.head_dim, tokens)
        for layer in self.layers:
            tokens = layer(tokens, turns)
        return self.norm(tokens)


class AceStepTimbreEncoder(AceStepLyricEncoder):
    """A sound's latent becomes one token: how it sounds."""

    def __init__(self, params: AceStep15Params, width: int, num_layers: int, **made: Any) -> None:
        super().__init__(params, width, num_layers, **made)
        self.special_token = torch.nn.Parameter(torch.empty(1, 1, params.encoder_hidden_size, **kept(made)))

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """B x T x channels to B x B x C. As in ComfyUI all timbres are the first entry's, and the others have zeros."""
        timbres = super().forward(inputs_embeds)[:, 0]
        tokens = timbres.new_zeros((len(timbres), *timbres.shape))
        tokens[0] = timbres
        return tokens


class AceStepConditionEncoder(torch.nn.Module):
    """Lyrics, timbre and text as tokens, one after the other."""

    def __init__(self, params: AceStep15Params, **made: Any) -> None:
        super().__init__()
        self.text_projector = made["operations"].Linear(params.text_hidden_dim, params.encoder_hidden_size, bias=False, **kept(made))
        self.lyric_encoder = AceStepLyricEncoder(params, params.text_hidden_dim, params.num_lyric_layers, **made)
        self.timbre_encoder = AceStepTimbreEncoder(params, params.timbre_hidden_dim, params.num_timbre_layers, **made)

    def forward(self, text: torch.Tensor, lyrics: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Text and lyrics B x N x width, *reference* B x T x channels: B x tokens x C."""
        return torch.cat((self.lyric_encoder(lyrics), self.timbre_encoder(reference), self.text_projector(text)), dim=1)


class AceStepDiTModel(torch.nn.Module):
    """The diffusion model proper. Every other block's tokens attend to those near them alone."""

    def __init__(self, params: AceStep15Params, **made: Any) -> None:
        super().__init__()
        operations, hidden = made["operations"], params.hidden_size
        self.patch_size, self.head_dim, self.sliding_window = params.patch_size, params.head_dim, params.sliding_window
        patches = {"kernel_size": params.patch_size, "stride": params.patch_size}
        self.proj_in = torch.nn.Sequential(torch.nn.Identity(), operations.Conv1d(params.in_channels, hidden, **patches, **kept(made)))
        self.time_embed = TimestepEmbedding(TIME_CHANNELS, hidden, **made)
        self.time_embed_r = TimestepEmbedding(TIME_CHANNELS, hidden, **made)
        self.condition_embedder = operations.Linear(params.encoder_hidden_size, hidden, **kept(made))
        kinds = params.layer_types or ("sliding_attention", "full_attention")
        sizes = (hidden, params.num_heads, params.num_kv_heads, params.head_dim, params.intermediate_size, params.rms_norm_eps)
        self.layers = torch.nn.ModuleList(
            AceStepDiTLayer(*sizes, kinds[number % len(kinds)], params.sliding_window, **made) for number in range(params.num_dit_layers)
        )
        self.norm_out = operations.RMSNorm(hidden, eps=params.rms_norm_eps, **kept(made))
        self.proj_out = torch.nn.Sequential(
            torch.nn.Identity(), operations.ConvTranspose1d(hidden, params.audio_acoustic_hidden_dim, **patches, **kept(made))
        )
        self.scale_shift_table = torch.nn.Parameter(torch.empty(1, 2, hidden, **kept(made)))

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        timestep_r: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        transformer_options: dict[str, Any],
    ) -> torch.Tensor:
        """*x*: B x channels x T, what is known and then the noisy latent; the result has the latent's channels."""
        vector, modulation = self.time_embed(timestep, x.dtype)
        vector_r, modulation_r = self.time_embed_r(timestep - timestep_r, x.dtype)
        vector, modulation = vector + vector_r, modulation + modulation_r
        places = x.shape[-1]
        tokens = self.proj_in(F.pad(x, (0, -places % self.patch_size))).transpose(1, 2)
        asked = self.condition_embedder(encoder_hidden_states)
        turns = rotations(tokens.shape[1], self.head_dim, tokens)
        near = window_mask(tokens.shape[1], self.sliding_window, tokens.device)
        transformer_options |= {"total_blocks": len(self.layers), "block_type": "single"}
        for number, layer in enumerate(self.layers):
            transformer_options["block_index"] = number
            attention: Any = layer.self_attn
            mask = None if attention.sliding_window is None else near
            tokens = layer(tokens, modulation, asked, turns, mask, transformer_options)
        shift, scale = (cast(self.scale_shift_table, vector) + vector[:, None]).chunk(2, dim=1)
        tokens = torch.addcmul(shift, self.norm_out(tokens), 1 + scale)
        return self.proj_out(tokens.transpose(1, 2))[..., :places]


class AceStepConditionGenerationModel(DiffusionTransformer):
    """The diffusion model with the encoders of what it is asked for. *kwargs* are those of :class:`AceStep15Params`."""

    def __init__(
        self, audio_model: str | None = None, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None, **kwargs: Any
    ) -> None:
        super().__init__()
        self.params = params = AceStep15Params(**kwargs)
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.dtype = dtype
        self.pool_window_size = params.pool_window_size
        self.decoder = AceStepDiTModel(params, **made)
        self.encoder = AceStepConditionEncoder(params, **made)
        channels, hidden = params.audio_acoustic_hidden_dim, params.encoder_hidden_size
        self.tokenizer = AceStepAudioTokenizer(
            channels,
            hidden,
            params.pool_window_size,
            params.fsq_dim,
            params.fsq_levels,
            params.num_tokenizer_layers,
            params.head_dim,
            params.rms_norm_eps,
            **made,
        )
        self.detokenizer = AudioTokenDetokenizer(
            hidden, params.pool_window_size, channels, params.num_detokenizer_layers, params.head_dim, **made
        )
        self.null_condition_emb = torch.nn.Parameter(torch.empty(1, 1, hidden, **kept(made)))

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        lyric_embed: torch.Tensor | None = None,
        refer_audio: torch.Tensor | None = None,
        audio_codes: torch.Tensor | None = None,
        is_covers: bool | None = None,
        replace_with_null_embeds: bool = False,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        arguments = (x, timestep, context, lyric_embed, refer_audio, audio_codes, is_covers, replace_with_null_embeds, options)
        return self.wrapped(*arguments, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        lyric_embed: torch.Tensor | None = None,
        refer_audio: torch.Tensor | None = None,
        audio_codes: torch.Tensor | None = None,
        is_covers: bool | None = None,
        replace_with_null_embeds: bool = False,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* and *refer_audio* B x 64 x T, *timestep* B (0 to 1), *context* (tags) and *lyric_embed* B x N x 1024.

        *audio_codes* (B x codes) say what the latent is to be like, else *refer_audio* does: by its own codes, or for *is_covers* False
        itself. With *replace_with_null_embeds* nothing is asked for.

        Raises ``ValueError`` without lyrics or reference.
        """
        if lyric_embed is None or refer_audio is None:
            raise ValueError("ACE-Step 1.5 needs lyrics (empty ones will do): encode the text with TextEncodeAceStepAudio1.5")
        reference = refer_audio.transpose(1, 2)
        asked = self.encoder(context, lyric_embed, reference)
        if replace_with_null_embeds:
            asked = cast(self.null_condition_emb, asked).expand_as(asked)
        known = refer_audio if is_covers is False else self._hints(reference, audio_codes, x).transpose(1, 2)
        joined = torch.cat((known.to(x.dtype), torch.ones_like(x), x), dim=1)
        return self.decoder(joined, timestep, timestep, asked, dict(transformer_options or {}))

    def _hints(self, reference: torch.Tensor, codes: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        """What codes, or those of *reference*, say of the latent: B x T x channels."""
        places = x.shape[-1]
        if codes is None:
            vectors = self.tokenizer.tokenize(reference)
        else:
            missing = max(0, math.ceil(places / self.pool_window_size) - codes.shape[1])
            vectors = self.tokenizer.quantizer.get_output_from_indices(F.pad(codes, (0, missing), value=LAST_CODE), x.dtype)
        return self.detokenizer(vectors)[:, :places]
