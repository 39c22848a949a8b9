"""Wan's networks that hear: HuMo and Wan 2.2's S2V, in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, N tokens of the video, C width of a token, F frames of latents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.modules.attention
from comfy.ldm.wan.hearing import AudioInjector_WAN, CausalAudioEncoder, FramePackMotioner
from comfy.ldm.wan.layers import Options, WanAttentionBlock, WanSelfAttention, sinusoidal_embedding_1d
from comfy.ldm.wan.model import After, WanModel

TOKENS_PER_FRAME = 16  # of sound, for a frame of latents
FIRST_REFERENCE = 30  # where in time a picture to look at stands at the least, and how far behind the video
BEHIND = 9


class WanT2VCrossAttentionGather(WanSelfAttention):
    """Attention of a frame's tokens to what is heard meanwhile."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, context: torch.Tensor, transformer_options: Options | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x (F·16) x width."""
        key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in (self.norm_k(self.k(context)), self.v(context)))
        key, value = (part.reshape(-1, TOKENS_PER_FRAME, *part.shape[2:]).transpose(1, 2) for part in (key, value))
        query = self.norm_q(self.q(x)).reshape(len(key), -1, self.num_heads, self.head_dim).transpose(1, 2)
        attention = comfy.ldm.modules.attention.optimized_attention
        heard = attention(query, key, value, heads=self.num_heads, skip_reshape=True, transformer_options=transformer_options or {})
        return self.o(heard.reshape(x.shape))


class AudioCrossAttentionWrapper(torch.nn.Module):
    """That attention, after a norm and beside what there is."""

    def __init__(
        self, dim: int, kv_dim: int, num_heads: int, qk_norm: bool = True, eps: float = 1e-6, operation_settings: Any = None
    ) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept = {"device": settings.get("device"), "dtype": settings.get("dtype")}
        sizes: dict[str, Any] = {"qk_norm": qk_norm, "eps": eps, "kv_dim": kv_dim, "operation_settings": settings}
        self.audio_cross_attn = WanT2VCrossAttentionGather(dim, num_heads, **sizes)
        self.norm1_audio = settings["operations"].LayerNorm(dim, eps, elementwise_affine=True, **kept)

    def forward(self, x: torch.Tensor, audio: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """*x* B x N x C, *audio* B x (F·16) x width."""
        return x + self.audio_cross_attn(self.norm1_audio(x), audio, transformer_options=transformer_options)


class WanAttentionBlockAudio(WanAttentionBlock):
    """A block that also attends to sound, between the text and the feed-forward layer. *audio_dim*: width of the sound's tokens."""

    def __init__(self, *arguments: Any, audio_dim: int = 1536, operation_settings: Any = None, **sizes: Any) -> None:
        super().__init__(*arguments, **{**sizes, "operation_settings": operation_settings})
        heard = (self.dim, audio_dim, self.num_heads, self.qk_norm, self.eps)
        self.audio_cross_attn_wrapper = AudioCrossAttentionWrapper(*heard, operation_settings=operation_settings)

    def forward(self, *arguments: Any, audio: torch.Tensor | None = None, transformer_options: Options | None = None, **given: Any) -> Any:
        """As its base class, with *audio* B x (F·16) x width."""
        options = {} if transformer_options is None else transformer_options
        if audio is None:
            return super().forward(*arguments, **{**given, "transformer_options": options})

        def hear(seen: Mapping[str, Any]) -> torch.Tensor:
            return self.audio_cross_attn_wrapper(seen["x"], audio, options)

        patches = options.get("patches", {})
        heard = {**options, "patches": {**patches, "attn2_patch": [*patches.get("attn2_patch", ()), hear]}}
        return super().forward(*arguments, **{**given, "transformer_options": heard})


class DummyAdapterLayer(torch.nn.Module):
    """A layer called ``layer``."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *arguments: Any, **kwargs: Any) -> Any:
        """The layer's result."""
        return self.layer(*arguments, **kwargs)


class AudioProjModel(torch.nn.Module):
    """What is heard around a frame, as tokens."""

    def __init__(self, input_dim: int, intermediate_dim: int, output_dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.output_dim = output_dim
        widths = (input_dim, intermediate_dim, intermediate_dim, TOKENS_PER_FRAME * output_dim)
        for number, (inner, outer) in enumerate(zip(widths, widths[1:]), 1):
            setattr(self, f"audio_proj_glob_{number}", DummyAdapterLayer(operations.Linear(inner, outer, **kept)))
        self.audio_proj_glob_norm = DummyAdapterLayer(operations.LayerNorm(output_dim, **kept))

    audio_proj_glob_1: Any
    audio_proj_glob_2: Any
    audio_proj_glob_3: Any

    def forward(self, audio_embeds: torch.Tensor) -> torch.Tensor:
        """B x F x times x layers x width to B x F x 16 x C."""
        heard = torch.relu(self.audio_proj_glob_2(torch.relu(self.audio_proj_glob_1(audio_embeds.flatten(2)))))
        return self.audio_proj_glob_norm(self.audio_proj_glob_3(heard).unflatten(-1, (TOKENS_PER_FRAME, -1)))


class HumoWanModel(WanModel):
    """HuMo: text, sound and a picture of who is to be seen, which stands behind the video in time."""

    def __init__(
        self,
        model_type: str = "humo",
        *,
        audio_input_dim: int = 51200,
        audio_intermediate_dim: int = 512,
        audio_output_dim: int = 1536,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}

        def block(*arguments: Any, **given: Any) -> WanAttentionBlock:
            return WanAttentionBlockAudio(*arguments, audio_dim=audio_output_dim, **given)

        made: Any = block
        super().__init__("t2v", wan_attn_block_class=made, **kept, **sizes)
        self.audio_proj = AudioProjModel(audio_input_dim, audio_intermediate_dim, audio_output_dim, **kept)

    def forward_orig(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        freqs: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        audio_embed: torch.Tensor | None = None,
        reference_latent: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*audio_embed* B x F x 8 x layers x width; *reference_latent* B x channels x frames x height x width."""
        assert freqs is not None
        options = {} if transformer_options is None else transformer_options
        cells = self._patches(x)
        tokens = cells.flatten(2).transpose(1, 2)
        embedded = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.flatten()).to(x.dtype)).unflatten(0, (len(t), -1))
        if reference_latent is not None:
            tokens = torch.cat((tokens, self._patches(reference_latent).flatten(2).transpose(1, 2)), dim=1)
            frames, height, width = reference_latent.shape[-3:]
            behind = self.rope_encode(frames, height, width, t_start=x.shape[2], device=x.device, dtype=x.dtype)
            freqs = torch.cat((freqs, behind), dim=1)
        heard = None
        if audio_embed is not None:
            silent = 0 if reference_latent is None else reference_latent.shape[-3]
            audio_embed = torch.nn.functional.pad(audio_embed, (0, 0, 0, 0, 0, 0, 0, silent))
            heard = self.audio_proj(audio_embed).flatten(1, 2)
        times = self.time_projection(embedded).unflatten(2, (6, self.dim))
        state = {"txt": self.text_embedding(context), "vec": times, "pe": freqs, "context_img_len": None, "block": {"audio": heard}}
        tokens = self._run_blocks(x, tokens, embedded, state, 0, options, None)
        return self.unpatchify(self.head(tokens, embedded), cells.shape[2:])


class WanModel_S2V(WanModel):  # noqa: N801 - ComfyUI's name
    """Wan 2.2's S2V: sound, a picture, the frames before, and a control video. Some blocks are followed by attention to what is heard."""

    def __init__(
        self,
        model_type: str = "s2v",
        *,
        audio_dim: int = 1024,
        audio_layers: int = 25,
        num_audio_token: int = 4,
        cond_dim: int = 16,
        audio_inject_layers: Sequence[int] = (),
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        super().__init__("t2v", **kept, **sizes)
        width = self.dim
        self.trainable_cond_mask = operations.Embedding(3, width, device=device, dtype=dtype)
        self.casual_audio_encoder = CausalAudioEncoder(audio_dim, audio_layers, width, num_audio_token, **kept)
        patch = {"kernel_size": self.patch_size, "stride": self.patch_size, "device": device, "dtype": dtype}
        self.cond_encoder: Any = operations.Conv3d(cond_dim, width, **patch) if cond_dim else None
        self.audio_injector = AudioInjector_WAN(width, self.num_heads, audio_inject_layers, **kept)
        self.frame_packer = FramePackMotioner(self.in_dim, width, **kept)

    def forward_orig(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        freqs: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        audio_embed: torch.Tensor | None = None,
        reference_latent: torch.Tensor | None = None,
        control_video: torch.Tensor | None = None,
        reference_motion: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*audio_embed* B x layers x width x (4·F); *reference_latent*, *control_video* and *reference_motion* (the frames before) are
        latents as *x*.
        """
        assert freqs is not None
        options, frames = {} if transformer_options is None else transformer_options, x.shape[2]
        cells = self._patches(x)
        if control_video is not None:
            cells = cells + self.cond_encoder(control_video)
        kinds = self.trainable_cond_mask(torch.arange(3, device=x.device), out_dtype=x.dtype)
        tokens = cells.flatten(2).transpose(1, 2) + kinds[0]
        own = tokens.shape[1]
        t = t[:, None].expand(-1, frames) if t.ndim == 1 else t
        turns = [freqs]
        if reference_latent is not None:
            tokens = torch.cat((tokens, self._patches(reference_latent).flatten(2).transpose(1, 2) + kinds[1]), dim=1)
            seen, height, width = reference_latent.shape[-3:]
            start = max(FIRST_REFERENCE, frames + BEHIND)
            turns.append(self.rope_encode(seen, height, width, t_start=start, device=x.device, dtype=x.dtype))
            t = torch.nn.functional.pad(t, (0, seen))
        if reference_motion is not None:
            before, before_turns = self.frame_packer(reference_motion, self)
            tokens = torch.cat((tokens, before + kinds[2]), dim=1)
            turns.append(before_turns)
            t = torch.nn.functional.pad(t.repeat_interleave(2, dim=1), (0, 3))
        embedded = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.flatten()).to(x.dtype)).unflatten(0, (len(t), -1))
        times = self.time_projection(embedded).unflatten(2, (6, self.dim))
        state = {"txt": self.text_embedding(context), "vec": times, "pe": torch.cat(turns, dim=1), "context_img_len": None}
        after = None if audio_embed is None else self._heard(audio_embed[..., : 4 * frames], own)
        tokens = self._run_blocks(x, tokens, embedded, state, 0, options, after)
        return self.unpatchify(self.head(tokens, embedded), cells.shape[2:])

    def _heard(self, audio_embed: torch.Tensor, own: int) -> After:
        """What is done after each block: the video's tokens, the first *own*, attend to what is heard."""
        whole, heard = self.casual_audio_encoder(audio_embed)
        return lambda number, tokens: self.audio_injector(tokens, number, heard, whole, own)
