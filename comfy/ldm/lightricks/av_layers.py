"""The block of LTX's network of videos with sound, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens of the video, A tokens of the sound, C width of a token, M times (1, one per frame, or one per token).
"""

from __future__ import annotations

from typing import Any

import torch

from comfy.ldm.common_dit import rms_norm
from comfy.ldm.lightricks.layers import (
    ADALN_BASE_PARAMS_COUNT,
    ADALN_CROSS_ATTN_PARAMS_COUNT,
    CrossAttention,
    FeedForward,
    apply_cross_attention_adaln,
    modulated,
    values_of,
)

Options = dict[str, Any]
SCALES_AND_SHIFTS = 4  # rows of the tables between video and sound, before that of shares


class CompressedTimestep:
    """Values of times of the video's tokens, one row per frame where all tokens of a frame have the same.

    *tensor* is B x tokens x values, or with *per_frame* B x frames x values; *patches_per_frame* None: tokens of a frame may differ.
    """

    __slots__ = ("data", "patches_per_frame")

    def __init__(self, tensor: torch.Tensor, patches_per_frame: int | None, per_frame: bool = False) -> None:
        tokens = tensor.shape[1]
        frames = patches_per_frame is not None and tokens >= patches_per_frame and tokens % patches_per_frame == 0
        self.patches_per_frame = patches_per_frame if patches_per_frame is not None and (per_frame or frames) else 1
        self.data = tensor if per_frame or not frames else tensor[:, :: self.patches_per_frame].contiguous()

    def expand(self) -> torch.Tensor:
        """The values of each token, or of the one time that all have."""
        return self._for_tokens(self.data)

    def expand_for_computation(
        self, scale_shift_table: torch.Tensor, batch_size: int, indices: slice = slice(None)
    ) -> tuple[torch.Tensor, ...]:
        """:func:`comfy.ldm.lightricks.layers.values_of`, for each token."""
        return tuple(self._for_tokens(values) for values in values_of(scale_shift_table, self.data, indices))

    def _for_tokens(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.patches_per_frame == 1 else values.repeat_interleave(self.patches_per_frame, dim=1)


Times = torch.Tensor | CompressedTimestep


class BasicAVTransformerBlock(torch.nn.Module):
    """A block: video and sound each look at themselves and at the text, then at each other, then go through a feed-forward."""

    def __init__(
        self,
        v_dim: int,
        a_dim: int,
        v_heads: int,
        a_heads: int,
        vd_head: int,
        ad_head: int,
        v_context_dim: int | None = None,
        a_context_dim: int | None = None,
        attn_precision: Any = None,
        apply_gated_attention: bool = False,
        cross_attention_adaln: bool = False,
        ff_bias: bool = True,
        audio_ff_bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        layers: dict[str, Any] = {"operations": operations, **kept}
        video: dict[str, Any] = {"heads": v_heads, "dim_head": vd_head, "attn_precision": attn_precision, **layers}
        sound: dict[str, Any] = {"heads": a_heads, "dim_head": ad_head, "attn_precision": attn_precision, **layers}
        video["apply_gated_attention"] = sound["apply_gated_attention"] = apply_gated_attention
        self.attn_precision, self.cross_attention_adaln = attn_precision, cross_attention_adaln
        self.attn1 = CrossAttention(v_dim, **video)
        self.audio_attn1 = CrossAttention(a_dim, **sound)
        self.attn2 = CrossAttention(v_dim, v_context_dim, **video)
        self.audio_attn2 = CrossAttention(a_dim, a_context_dim, **sound)
        self.audio_to_video_attn = CrossAttention(v_dim, a_dim, **sound)
        self.video_to_audio_attn = CrossAttention(a_dim, v_dim, **sound)
        self.ff = FeedForward(v_dim, v_dim, glu=True, ff_bias=ff_bias, **layers)
        self.audio_ff = FeedForward(a_dim, a_dim, glu=True, ff_bias=audio_ff_bias, **layers)
        rows = ADALN_CROSS_ATTN_PARAMS_COUNT if cross_attention_adaln else ADALN_BASE_PARAMS_COUNT
        tables = {"scale_shift_table": (rows, v_dim), "audio_scale_shift_table": (rows, a_dim)}
        tables |= {"scale_shift_table_a2v_ca_audio": (SCALES_AND_SHIFTS + 1, a_dim)}
        tables |= {"scale_shift_table_a2v_ca_video": (SCALES_AND_SHIFTS + 1, v_dim)}
        if cross_attention_adaln:
            tables |= {"prompt_scale_shift_table": (2, v_dim), "audio_prompt_scale_shift_table": (2, a_dim)}
        for name, shape in tables.items():
            setattr(self, name, torch.nn.Parameter(torch.empty(*shape, **kept)))

    def get_ada_values(
        self, scale_shift_table: torch.Tensor, batch_size: int, timestep: Times, indices: slice = slice(None)
    ) -> tuple[torch.Tensor, ...]:
        """The rows *indices* of a table, moved by what the times say."""
        if isinstance(timestep, CompressedTimestep):
            return timestep.expand_for_computation(scale_shift_table, batch_size, indices)
        return values_of(scale_shift_table, timestep, indices)

    def forward(
        self,
        x: tuple[torch.Tensor, torch.Tensor],
        v_context: Any = None,
        a_context: Any = None,
        attention_mask: Any = None,
        v_timestep: Any = None,
        a_timestep: Any = None,
        v_pe: Any = None,
        a_pe: Any = None,
        v_cross_pe: Any = None,
        a_cross_pe: Any = None,
        v_cross_scale_shift_timestep: Any = None,
        a_cross_scale_shift_timestep: Any = None,
        v_cross_gate_timestep: Any = None,
        a_cross_gate_timestep: Any = None,
        transformer_options: Options | None = None,
        self_attention_mask: Any = None,
        v_prompt_timestep: Any = None,
        a_prompt_timestep: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """*x*: the tokens of the video (B x N x C) and of the sound (B x A x C'), which are changed.

        ``run_vx``, ``run_ax``, ``a2v_cross_attn`` and ``v2a_cross_attn`` in *transformer_options* leave parts out.
        """
        options = {} if transformer_options is None else transformer_options
        video, sound = x
        on_video, heard = options.get("run_vx", True), sound.numel() > 0
        on_sound = options.get("run_ax", True) and heard
        to_video = on_video and options.get("a2v_cross_attn", True) and heard
        to_sound = on_sound and options.get("v2a_cross_attn", True)
        if on_video:
            self._look("", video, v_context, v_timestep, v_prompt_timestep, v_pe, attention_mask, self_attention_mask, options)
        if on_sound:
            self._look("audio_", sound, a_context, a_timestep, a_prompt_timestep, a_pe, attention_mask, None, options)
        both = (v_cross_scale_shift_timestep, a_cross_scale_shift_timestep, v_cross_pe, a_cross_pe, options)
        if to_video:
            seen = self._cross(self.audio_to_video_attn, video, sound, *both)
            video.addcmul_(seen, self._share("video", video, v_cross_gate_timestep))
        if to_sound:  # which sees the video as it is by now
            seen = self._cross(self.video_to_audio_attn, video, sound, *both)
            sound.addcmul_(seen, self._share("audio", sound, a_cross_gate_timestep))
        if on_video:
            self._feed_forward("", video, v_timestep)
        if on_sound:
            self._feed_forward("audio_", sound, a_timestep)
        return video, sound

    def _look(
        self, of: str, x: torch.Tensor, text: Any, times: Any, text_times: Any, turns: Any, text_mask: Any, own_mask: Any, options: Options
    ) -> None:
        """Attention of *x* to itself, then to the text; *of* is "" for the video and "audio_" for the sound."""
        table = getattr(self, f"{of}scale_shift_table")
        own, to_text = getattr(self, f"{of}attn1"), getattr(self, f"{of}attn2")
        shift, scale = self.get_ada_values(table, len(x), times, slice(0, 2))
        seen = own(modulated(x, scale, shift), pe=turns, mask=own_mask, transformer_options=options)
        del shift, scale
        x.addcmul_(seen, self.get_ada_values(table, len(x), times, slice(2, 3))[0])
        if not self.cross_attention_adaln:
            x += to_text(rms_norm(x), context=text, mask=text_mask, transformer_options=options)
            return
        shift, scale, share = self.get_ada_values(table, len(x), times, slice(6, 9))
        text_table = getattr(self, f"{of}prompt_scale_shift_table")
        x += apply_cross_attention_adaln(x, text, to_text, shift, scale, share, text_table, text_times, text_mask, options)

    def _cross(
        self,
        attention: CrossAttention,
        video: torch.Tensor,
        sound: torch.Tensor,
        video_times: Any,
        sound_times: Any,
        video_turns: Any,
        sound_turns: Any,
        options: Options,
    ) -> torch.Tensor:
        """What one of *video* and *sound* sees of the other, by *attention*."""
        to_video = attention is self.audio_to_video_attn
        rows = slice(0, 2) if to_video else slice(2, 4)
        inputs = []
        for tokens, times, kind in ((video, video_times, "video"), (sound, sound_times, "audio")):
            table = getattr(self, f"scale_shift_table_a2v_ca_{kind}")[:SCALES_AND_SHIFTS]
            scale, shift = self.get_ada_values(table, len(tokens), times, rows)
            inputs.append(modulated(tokens, scale, shift))
        if to_video:
            return attention(inputs[0], context=inputs[1], pe=video_turns, k_pe=sound_turns, transformer_options=options)
        return attention(inputs[1], context=inputs[0], pe=sound_turns, k_pe=video_turns, transformer_options=options)

    def _share(self, kind: str, x: torch.Tensor, times: Any) -> torch.Tensor:
        table = getattr(self, f"scale_shift_table_a2v_ca_{kind}")[SCALES_AND_SHIFTS:]
        return self.get_ada_values(table, len(x), times)[0]

    def _feed_forward(self, of: str, x: torch.Tensor, times: Any) -> None:
        table, layers = getattr(self, f"{of}scale_shift_table"), getattr(self, f"{of}ff")
        shift, scale = self.get_ada_values(table, len(x), times, slice(3, 5))
        made = layers(modulated(x, scale, shift))
        del shift, scale
        x.addcmul_(made, self.get_ada_values(table, len(x), times, slice(5, 6))[0])
