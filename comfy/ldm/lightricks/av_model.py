"""LTX 2's network of videos with sound in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, N tokens of the video, A tokens of the sound, T tokens of the text, M times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.dit.network import run_block
from comfy.ldm.lightricks.av_layers import BasicAVTransformerBlock, CompressedTimestep
from comfy.ldm.lightricks.base_model import FRAME_RATE, Options
from comfy.ldm.lightricks.embeddings_connector import Embeddings1DConnector
from comfy.ldm.lightricks.layers import compute_prompt_timestep
from comfy.ldm.lightricks.model import LTXVModel
from comfy.ldm.lightricks.symmetric_patchifier import AudioPatchifier

__all__ = ["BasicAVTransformerBlock", "CompressedTimestep", "LTXAVModel"]

AUDIO_CHANNELS, PITCHES = 8, 16  # of a latent of sound
CROSS_VALUES = 4  # per channel, with which a time changes how video and sound look at each other


class LTXAVModel(LTXVModel):
    """The network. Its latents are a list of the video's and, unless there is none, the sound's; see :class:`LTXVModel` for patches."""

    def __init__(
        self,
        in_channels: int = 128,
        audio_in_channels: int = 128,
        cross_attention_dim: int = 4096,
        audio_cross_attention_dim: int = 2048,
        attention_head_dim: int = 128,
        audio_attention_head_dim: int = 64,
        num_attention_heads: int = 32,
        audio_num_attention_heads: int = 32,
        caption_channels: int = 3840,
        num_layers: int = 48,
        audio_positional_embedding_max_pos: Sequence[float] = (20,),
        av_ca_timestep_scale_multiplier: float = 1.0,
        apply_gated_attention: bool = False,
        audio_ff_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        sound: dict[str, Any] = {
            "audio_in_channels": audio_in_channels,
            "audio_cross_attention_dim": audio_cross_attention_dim,
            "audio_attention_head_dim": audio_attention_head_dim,
            "audio_num_attention_heads": audio_num_attention_heads,
            "audio_positional_embedding_max_pos": audio_positional_embedding_max_pos,
            "av_ca_timestep_scale_multiplier": av_ca_timestep_scale_multiplier,
            "apply_gated_attention": apply_gated_attention,
            "audio_ff_bias": audio_ff_bias,
        }
        super().__init__(
            in_channels, cross_attention_dim, attention_head_dim, num_attention_heads, caption_channels, num_layers, **{**sound, **kwargs}
        )

    def _init_model_components(self, device: Any, dtype: Any, **kwargs: Any) -> None:
        """The sound's counterparts, what changes how both look at each other, and the connectors to the text."""
        self.audio_in_channels = self.audio_out_channels = kwargs["audio_in_channels"]
        self.audio_cross_attention_dim = kwargs["audio_cross_attention_dim"]
        self.audio_attention_head_dim = kwargs["audio_attention_head_dim"]
        self.audio_num_attention_heads = kwargs["audio_num_attention_heads"]
        self.audio_positional_embedding_max_pos = list(kwargs["audio_positional_embedding_max_pos"])
        self.av_ca_timestep_scale_multiplier = kwargs["av_ca_timestep_scale_multiplier"]
        self.apply_gated_attention, self.audio_ff_bias = kwargs["apply_gated_attention"], kwargs["audio_ff_bias"]
        self.audio_inner_dim = self.audio_num_attention_heads * self.audio_attention_head_dim
        self.num_audio_channels, self.audio_frequency_bins = AUDIO_CHANNELS, PITCHES
        self.audio_patchify_proj = self.operations.Linear(self.audio_in_channels, self.audio_inner_dim, **self._kept)
        self.audio_adaln_single = self._ada(self.audio_inner_dim, self.ada_values)
        self.audio_prompt_adaln_single = self._ada(self.audio_inner_dim, 2) if self.use_prompt_adaln_single else None
        self.av_ca_video_scale_shift_adaln_single = self._ada(self.inner_dim, CROSS_VALUES)
        self.av_ca_a2v_gate_adaln_single = self._ada(self.inner_dim, 1)
        self.av_ca_audio_scale_shift_adaln_single = self._ada(self.audio_inner_dim, CROSS_VALUES)
        self.av_ca_v2a_gate_adaln_single = self._ada(self.audio_inner_dim, 1)
        self.audio_caption_projection = self._text_projection(self.audio_inner_dim)
        head, heads = kwargs.get("connector_attention_head_dim", 128), kwargs.get("connector_num_attention_heads", 30)
        sound = (kwargs.get("audio_connector_attention_head_dim", head), kwargs.get("audio_connector_num_attention_heads", heads))
        self.audio_embeddings_connector = self._connector(*sound, kwargs)
        self.video_embeddings_connector = self._connector(head, heads, kwargs)

    def _connector(self, head: int, heads: int, settings: Mapping[str, Any]) -> Embeddings1DConnector:
        return Embeddings1DConnector(
            head,
            heads,
            settings.get("connector_num_layers", 2),
            apply_gated_attention=settings.get("connector_apply_gated_attention", False),
            split_rope=self.rope_type in (None, "split"),
            double_precision_rope=True,
            operations=self.operations,
            **self._kept,
        )

    def preprocess_text_embeds(self, context: torch.Tensor, unprocessed: bool = False) -> torch.Tensor:
        """*context* (B x T x width of the text encoder) through the connectors, those of video and sound side by side.

        Unless it is *unprocessed*, text that already has the width of both comes back as it is.
        """
        both = self.cross_attention_dim + self.audio_cross_attention_dim
        width = context.shape[-1]
        if not unprocessed and width in (both, self.caption_channels * 2):
            return context
        video, sound = (
            context.split((self.cross_attention_dim, width - self.cross_attention_dim), -1) if width == both else (context, context)
        )
        if self.caption_proj_before_connector:
            video, sound = self.caption_projection(video), self.audio_caption_projection(sound)
        return torch.cat((self.video_embeddings_connector(video)[0], self.audio_embeddings_connector(sound)[0]), dim=-1)

    def _init_transformer_blocks(self, device: Any, dtype: Any, **kwargs: Any) -> None:
        heads = (self.num_attention_heads, self.audio_num_attention_heads, self.attention_head_dim, self.audio_attention_head_dim)
        names = ("apply_gated_attention", "cross_attention_adaln", "ff_bias", "audio_ff_bias", "operations")
        settings: dict[str, Any] = {**{name: getattr(self, name) for name in names}, **self._kept}
        settings |= {"v_context_dim": self.cross_attention_dim, "a_context_dim": self.audio_cross_attention_dim}
        blocks = (BasicAVTransformerBlock(self.inner_dim, self.audio_inner_dim, *heads, **settings) for _ in range(self.num_layers))
        self.transformer_blocks = torch.nn.ModuleList(blocks)

    def _init_output_components(self, device: Any, dtype: Any) -> None:
        super()._init_output_components(device, dtype)
        self.audio_scale_shift_table = torch.nn.Parameter(torch.empty(2, self.audio_inner_dim, **self._kept))
        self.audio_norm_out = self.operations.LayerNorm(self.audio_inner_dim, elementwise_affine=False, eps=1e-6, **self._kept)
        self.audio_proj_out = self.operations.Linear(self.audio_inner_dim, self.audio_out_channels, **self._kept)
        self.a_patchifier = AudioPatchifier(1, start_end=True)

    def separate_audio_and_video_latents(self, x: Sequence[torch.Tensor], audio_length: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents of the video and of the sound, which has no tokens where *x* holds none."""
        if len(x) > 1:
            return x[0], x[1]
        return x[0], x[0].new_zeros((len(x[0]), self.num_audio_channels, 0, self.audio_frequency_bins))

    def recombine_audio_and_video_latents(self, vx: torch.Tensor, ax: torch.Tensor, target_shape: Any = None) -> Any:
        """Both latents as a list; the video's alone where the sound has no tokens."""
        return [vx, ax] if ax.numel() else vx

    def _process_input(self, x: Any, keyframe_idxs: Any, denoise_mask: Any, **kwargs: Any) -> tuple[Any, Any, Options]:
        x = [x] if torch.is_tensor(x) else x
        video_latent, sound_latent = self.separate_audio_and_video_latents(x)
        video, places, found = super()._process_input(video_latent, keyframe_idxs, denoise_mask, **kwargs)
        found["has_spatial_mask"] = False
        if denoise_mask is not None:
            frames = denoise_mask[0, 0].flatten(1)
            found["has_spatial_mask"] = bool((frames != frames[:, :1]).any())
        sound, times = self.a_patchifier.patchify(sound_latent)
        if kwargs.get("ref_audio") is not None:
            heard = kwargs["ref_audio"]["tokens"].to(sound)
            heard = heard.expand(len(sound), -1, -1) if len(heard) < len(sound) else heard
            found |= {"ref_audio_seq_len": heard.shape[1], "target_audio_seq_len": sound.shape[1]}
            times = torch.cat((self._times_before(heard.shape[1], times), times), dim=2)
            sound = torch.cat((heard, sound), dim=1)
        return [video, self.audio_patchify_proj(sound)], [places, times], found

    def _times_before(self, count: int, like: torch.Tensor) -> torch.Tensor:
        """The times of *count* tokens of sound that was heard before: the last of them ends one token before the time 0."""
        times = self.a_patchifier.times(0, count, like.device)
        times = times - (times[-1, -1] + self.a_patchifier.seconds_per_token)
        return times.to(like).expand(len(like), 1, *times.shape)

    def _prepare_timestep(self, timestep: Any, batch_size: int, hidden_dtype: torch.dtype, **kwargs: Any) -> tuple[Any, Any, Any]:
        """As for videos; of the video, of the sound, between them, and of the text for both."""
        kept, shape = kwargs.get("grid_mask"), kwargs["orig_shape"]
        each = None if kwargs.get("has_spatial_mask") else shape[3] * shape[4]
        scaled = (timestep if kept is None else timestep[:, kept]) * self.timestep_scale_multiplier
        by_frame = each is not None and (timestep.numel() // batch_size) % each == 0
        rows = scaled
        if by_frame:  # one row for each frame instead of one for each of its tokens
            frames = timestep.reshape(batch_size, -1, each)[:, :, 0]
            rows = (frames if kept is None else frames[:, kept[::each]]) * self.timestep_scale_multiplier
        video, video_end = (
            CompressedTimestep(values, each, by_frame) for values in self._of_times(self.adaln_single, rows, batch_size, hidden_dtype)
        )
        of_text = compute_prompt_timestep(self.prompt_adaln_single, scaled, batch_size, hidden_dtype)
        heard = self._sound_times(kwargs["a_timestep"], batch_size, **kwargs) * self.timestep_scale_multiplier
        sound, sound_end = self._of_times(self.audio_adaln_single, heard, batch_size, hidden_dtype)
        of_text_for_sound = compute_prompt_timestep(self.audio_prompt_adaln_single, heard, batch_size, hidden_dtype)
        share = self.av_ca_timestep_scale_multiplier / self.timestep_scale_multiplier
        latest_heard = heard.max().expand_as(scaled) * share
        latest_seen = scaled.max().expand_as(heard) * share
        between = (
            (self.av_ca_audio_scale_shift_adaln_single, heard),
            (self.av_ca_video_scale_shift_adaln_single, scaled),
            (self.av_ca_a2v_gate_adaln_single, latest_heard),
            (self.av_ca_v2a_gate_adaln_single, latest_seen),
        )
        values = [self._of_times(module, times, batch_size, hidden_dtype)[0] for module, times in between]
        cross = [values[0], CompressedTimestep(values[1], each), CompressedTimestep(values[2], each), values[3]]
        return [video, sound, cross, of_text, of_text_for_sound], [video_end, sound_end], None

    @staticmethod
    def _of_times(module: Any, times: torch.Tensor, batch_size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """What *module* makes of *times*, by item: B x M x values, twice."""
        values, embedded = module(times.flatten(), hidden_dtype=dtype)
        return values.view(batch_size, -1, values.shape[-1]), embedded.view(batch_size, -1, embedded.shape[-1])

    @staticmethod
    def _sound_times(timestep: torch.Tensor, batch_size: int, ref_audio_seq_len: int = 0, target_audio_seq_len: int = 0, **_: Any) -> Any:
        """The noise level of each token of sound: 0 for what was heard before."""
        if not ref_audio_seq_len:
            return timestep
        if timestep.ndim < 2:
            timestep = timestep.view(-1, 1).expand(batch_size, target_audio_seq_len)
        return torch.cat((timestep.new_zeros((batch_size, ref_audio_seq_len, *timestep.shape[2:])), timestep), dim=1)

    def _prepare_context(self, context: Any, batch_size: int, x: Any, attention_mask: Any = None) -> tuple[Any, Any]:
        widths = [tokens.shape[-1] for tokens in x] if self.caption_proj_before_connector else [self.caption_channels] * 2
        video, sound = context.split(widths, dim=-1)
        video, attention_mask = super()._prepare_context(video, batch_size, x[0], attention_mask)
        if not self.caption_proj_before_connector:
            sound = self.audio_caption_projection(sound)
        return [video, sound.view(batch_size, -1, x[1].shape[-1])], attention_mask

    def _prepare_positional_embeddings(self, pixel_coords: Any, frame_rate: float, x_dtype: torch.dtype) -> Any:
        """Of video and sound each: the rotations among themselves, and those by time alone, by which both look at each other."""
        places, times = self.in_seconds(pixel_coords[0], frame_rate), pixel_coords[1]
        heads, longest = self.audio_num_attention_heads, self.audio_positional_embedding_max_pos
        video = super()._prepare_positional_embeddings(pixel_coords[0], frame_rate, x_dtype)
        sound = self._precompute_freqs_cis(times, self.audio_inner_dim, x_dtype, longest, heads)
        most = [max(self.positional_embedding_max_pos[0], longest[0])]
        between = (
            self._precompute_freqs_cis(axis[:, :1], self.audio_cross_attention_dim, x_dtype, most, heads, middles=True)
            for axis in (places, times)
        )
        return list(zip((video, sound), between))

    def _process_transformer_blocks(self, x: Any, context: Any, attention_mask: Any, timestep: Any, pe: Any, **kwargs: Any) -> Any:
        options = kwargs["transformer_options"]
        (video_turns, video_cross_turns), (sound_turns, sound_cross_turns) = pe
        given: Options = {
            "v_context": context[0],
            "a_context": context[1],
            "attention_mask": attention_mask,
            "v_timestep": timestep[0],
            "a_timestep": timestep[1],
            "v_pe": video_turns,
            "a_pe": sound_turns,
            "v_cross_pe": video_cross_turns,
            "a_cross_pe": sound_cross_turns,
            "v_cross_scale_shift_timestep": timestep[2][1],
            "a_cross_scale_shift_timestep": timestep[2][0],
            "v_cross_gate_timestep": timestep[2][2],
            "a_cross_gate_timestep": timestep[2][3],
            "self_attention_mask": kwargs.get("self_attention_mask"),
            "v_prompt_timestep": timestep[3],
            "a_prompt_timestep": timestep[4],
        }
        both = (x[0], x[1])
        for number, block in enumerate(self.transformer_blocks):
            passing = number in options.get("stg_self_attn_blocks", ())
            own = {**options, "stg_skip_self_attn": True} if passing else options

            def original(args: Mapping[str, Any], block: Any = block) -> dict[str, Any]:
                passed = {name: args.get(name) for name in (*given, "transformer_options")}
                return {"img": block(args["img"], **passed)}

            both = run_block(options, ("double_block", number), {"img": both, **given, "transformer_options": own}, original)["img"]
        return list(both)

    def _process_output(self, x: Any, embedded_timestep: Any, keyframe_idxs: Any, **kwargs: Any) -> Any:
        video_end, sound_end = embedded_timestep
        tokens, before = x[1], kwargs.get("ref_audio_seq_len", 0)
        if before:
            tokens = tokens[:, before:]
            sound_end = sound_end[:, before:] if sound_end.shape[1] > 1 else sound_end
        video = super()._process_output(x[0], video_end.expand(), keyframe_idxs, **kwargs)
        shift, scale = (self.audio_scale_shift_table.to(sound_end) + sound_end[:, :, None]).unbind(dim=2)
        tokens = self.audio_proj_out(torch.addcmul(shift, self.audio_norm_out(tokens), 1 + scale))
        sound = self.a_patchifier.unpatchify(tokens, channels=self.num_audio_channels, freq=self.audio_frequency_bins)
        return self.recombine_audio_and_video_latents(video, sound)

    def forward(
        self,
        x: Any,
        timestep: Any,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        frame_rate: float = FRAME_RATE,
        transformer_options: Options | None = None,
        keyframe_idxs: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As for videos; *x* is a list of latents and *timestep* may be a pair, of the video and of the sound.

        *kwargs*: also ``ref_audio`` ({"tokens": B x A x values}, sound that was heard before).
        """
        pair = timestep if isinstance(timestep, tuple | list) and len(timestep) == 2 else (timestep, timestep)
        path = (x, pair[0], context, attention_mask, frame_rate, transformer_options, keyframe_idxs, denoise_mask)
        return super().forward(*path, a_timestep=pair[1], **kwargs)
