"""MiniMax H3's network in ComfyUI's tree and hooks: one sequence of text, what is shown, sound and video.

A video and its sound are made together; their levels of noise differ, as each has a shift of its own. Shapes: N rows of the sequence, T
tokens of text, C values of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.common_dit
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.minimax.layers import (
    MLP,
    MODALITIES,
    AdalnProj,
    Attention,
    DiTBlock,
    FinalLayer,
    Options,
    RefinerBlock,
    Run,
    TimeEmbedder,
    TokenRefiner,
)
from comfy.ldm.minimax.layout import AUDIO_KINDS, FRAME_PER_TOKEN, FRAME_RESCALE, VIDEO_KINDS, PackedLayout
from comfy.ldm.minimax.rows import (
    WHOLLY_FREE,
    mask_row_values,
    pack_audio,
    patchify_video,
    time_shift_sigma,
    unpack_audio,
    unpatchify_video,
)

__all__ = [
    "FRAME_PER_TOKEN",
    "FRAME_RESCALE",
    "MLP",
    "AdalnProj",
    "Attention",
    "DiTBlock",
    "FinalLayer",
    "MiniMaxH3Model",
    "PackedLayout",
    "RefinerBlock",
    "TimeEmbedder",
    "TokenRefiner",
    "mask_row_values",
    "pack_audio",
    "patchify_video",
    "time_shift_sigma",
    "unpack_audio",
    "unpatchify_video",
]

VISUAL_COND_TIMESTEP = 0.999  # the time (1: no noise) that pictures which are shown count as
AUDIO_COND_TIMESTEP = 1.0
VIDEO, TEXT, AUDIO = range(MODALITIES)
MODALITY = {"text": TEXT} | dict.fromkeys(VIDEO_KINDS, VIDEO) | dict.fromkeys(AUDIO_KINDS, AUDIO)
LEAST_SIGMA = 1e-6
TIMES = 1000.0  # of the sampler's time, per level of noise

Payload = Mapping[str, Any]


class Times:
    """The different times of the rows of one call, and the table rows of each run of rows.

    *of_kind* is the time of each kind of segment, *of_rows* that of each row (a tensor) where rows of the video or the sound differ.
    """

    def __init__(
        self, layout: PackedLayout, of_kind: Mapping[str, float], of_rows: Mapping[str, torch.Tensor], also: Iterable[float]
    ) -> None:
        self._layout, self._of_kind, self._of_rows = layout, of_kind, of_rows
        found = {of_kind[kind] for _, _, kind in layout.segments} | set(also)
        for rows in of_rows.values():
            found |= set(rows.unique().tolist())
        self.different = sorted(found)
        self._place = {time: number for number, time in enumerate(self.different)}

    def of(self, kind: str) -> Any:
        """Which of the different times the rows of *kind* have: one number, or one per row."""
        rows = self._of_rows.get(kind)
        if rows is None:
            return self._place[self._of_kind[kind]]
        levels = rows.unique()
        places = torch.tensor([self._place[level] for level in levels.tolist()], device=rows.device)
        return places[torch.searchsorted(levels, rows)]

    def runs(self, text_tags: torch.Tensor | None) -> list[Run]:
        """The rows of the blocks' tables. *text_tags*: the modality of each token of text, as pictures in it count as video."""
        found: list[Run] = []
        for start, stop, kind in self._layout.segments:
            row = self.of(kind) * MODALITIES
            if kind != "text" or text_tags is None:
                found.append((start, stop, row + MODALITY[kind]))
                continue
            tags, counts = torch.unique_consecutive(text_tags.flatten()[: stop - start], return_counts=True)
            for tag, count in zip(tags.tolist(), counts.tolist()):
                found.append((start, start + count, row + tag))
                start += count
        return found


class MiniMaxH3Model(DiffusionTransformer):
    """The network. ``patches_replace["dit"]`` of ``transformer_options`` replaces ``("double_block", number)``.

    With *gate_compress* blocks have the gates of FastVideo's sparse attention. With *adaln_curve_grid* times are places on a curve of that
    many points that the file holds, not embedded. *sigma_shift_video* and *sigma_shift_audio* hold where ``transformer_options`` name no
    others.
    """

    PATCH_BLOCKS = {"double_block": "blocks"}
    FLOAT32: tuple[str, ...] = (
        "video_patch_proj.",
        "audio_patch_proj.",
        "time_embedder.",
        "rope.",
        "final_layer.video_out.",
        "final_layer.audio_out.",
    )

    def __init__(
        self,
        hidden_size: int = 5376,
        num_layers: int = 50,
        token_refiner_num_layers: int = 2,
        num_attention_heads: int = 56,
        attention_head_dim: int = 128,
        ffn_hidden_size: int = 14336,
        latents_dim: int = 24,
        audio_latents_dim: int = 32,
        patch_size: Sequence[int] = (1, 2, 2),
        text_dim: int = 5120,
        timestep_input_dim: int = 256,
        time_embed_hidden_size: int = 5376,
        time_embed_dim: int = 2688,
        rope_inv_freq_len: int = 16,
        norm_eps: float = 1e-5,
        qk_norm_eps: float = 1e-5,
        final_norm_eps: float = 1e-5,
        sigma_shift_video: float = 12.0,
        sigma_shift_audio: float = 3.0,
        adaln_curve_grid: int | None = None,
        gate_compress: bool = False,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.dtype, self.hidden_size, self.patch_size = dtype, hidden_size, tuple(patch_size)
        self.latents_dim, self.audio_latents_dim = latents_dim, audio_latents_dim
        self.sigma_shift_video, self.sigma_shift_audio = sigma_shift_video, sigma_shift_audio
        self.use_adaln_curves = adaln_curve_grid is not None
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        tables: dict[str, Any] = {"apply_silu": adaln_curve_grid is None}
        wide: dict[str, Any] = {"dtype": torch.float32, "device": device}
        patch_values = latents_dim * torch.Size(self.patch_size).numel()
        self.video_patch_proj = operations.Linear(patch_values, hidden_size, **wide)
        self.audio_patch_proj = operations.Linear(audio_latents_dim, hidden_size, **wide)
        self.condition_proj = operations.Linear(text_dim, hidden_size, dtype=dtype, device=device)
        if adaln_curve_grid is None:
            self.time_embedder = TimeEmbedder(timestep_input_dim, time_embed_hidden_size, time_embed_dim, operations=operations, **wide)
        else:
            tables["adaln_dtype"] = torch.float32
            self.adaln_t_table = torch.nn.Parameter(torch.empty(adaln_curve_grid, time_embed_dim, **wide))
            self.FLOAT32 += ("adaln_t_table", "final_layer.adaln_proj.", *(f"blocks.{number}.adaln_proj." for number in range(num_layers)))
        self.rope = torch.nn.Module()
        self.rope.inv_freq = torch.nn.Parameter(torch.empty(rope_inv_freq_len, **wide))
        sizes = (hidden_size, num_attention_heads, attention_head_dim, ffn_hidden_size)
        tables |= made
        self.token_refiner = TokenRefiner(token_refiner_num_layers, *sizes, norm_eps, qk_norm_eps, final_norm_eps, **made)
        inner: dict[str, Any] = {**tables, "gate_compress": gate_compress}
        self.blocks = torch.nn.ModuleList(
            DiTBlock(hidden_size, num_attention_heads, attention_head_dim, ffn_hidden_size, time_embed_dim, norm_eps, qk_norm_eps, **inner)
            for _ in range(num_layers)
        )
        self.final_layer = FinalLayer(hidden_size, time_embed_dim, patch_values, audio_latents_dim, final_norm_eps, **tables)

    def preprocess_text_embeds(self, text_states: torch.Tensor) -> torch.Tensor:
        """The text encoder's states (1 x T x values) as the sequence holds them, 1 x T x C; those that are so already as they are."""
        if text_states.shape[-1] == self.hidden_size:
            return text_states
        return self._refined(text_states[0], {})[None]

    def _refined(self, text: torch.Tensor, options: Options) -> torch.Tensor:
        return self.token_refiner(self.condition_proj(text), transformer_options=options)

    def forward(
        self,
        x: Sequence[torch.Tensor],
        timestep: torch.Tensor,
        context: torch.Tensor,
        transformer_options: Options | None = None,
        minimax_payload: Payload | None = None,
        denoise_mask: torch.Tensor | None = None,
        audio_denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> list[torch.Tensor]:
        """The predictions for the video and the sound *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`.

        ``audio_scale`` of *minimax_payload* says that the sampler's sound is so much larger; the network's own is what wrappers see.
        """
        options = {} if transformer_options is None else transformer_options
        scale = float((minimax_payload or {}).get("audio_scale", 1.0))
        video, audio = x
        sigma, audio_sigma = self._sigmas(timestep, options)
        if scale != 1.0:
            audio = audio * (audio_sigma / sigma).to(audio.dtype)
        masks = {"denoise_mask": denoise_mask, "audio_denoise_mask": audio_denoise_mask}
        out: Any = self.wrapped(
            [video, audio], timestep, context, options, options=options, minimax_payload=minimax_payload, **masks, **kwargs
        )
        if scale != 1.0:  # the slope, in the video's time, of the sound as the sampler has it
            out[1] = (1.0 - scale) * audio + (1.0 + (scale - 1.0) * audio_sigma).to(out[1].dtype) * out[1]
        return out

    def _sigmas(self, timestep: torch.Tensor, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
        """The levels of noise of the video and of the sound."""
        shift = float(options.get("minimax_h3_sigma_shift_video", self.sigma_shift_video))
        audio_shift = float(options.get("minimax_h3_sigma_shift_audio", self.sigma_shift_audio))
        sigma = (timestep.flatten()[0] / TIMES).float().clamp(min=LEAST_SIGMA)
        return sigma, time_shift_sigma(sigma, shift, audio_shift)

    def _forward(
        self,
        x: Sequence[torch.Tensor],
        timestep: torch.Tensor,
        context: torch.Tensor,
        transformer_options: Options | None = None,
        minimax_payload: Payload | None = None,
        denoise_mask: torch.Tensor | None = None,
        audio_denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> list[torch.Tensor]:
        """Predictions for the video (1 x channels x frames x height x width) and the sound (1 x channels x 2 x times) *x*.

        *timestep* is a thousand times the video's level of noise, *context* 1 x T x values of the text encoder or of
        :meth:`preprocess_text_embeds`. *minimax_payload* may hold ``keyframes``, ``refs`` and their latents, ``layout``,
        ``text_token_tags``, ``seed``. Masks are 1 where the video (1 x 1 x frames x height x width) and the sound (1 x 1 x 2 x times) are
        free. Raises ``ValueError`` for several videos at once.
        """
        options, payload = {} if transformer_options is None else transformer_options, minimax_payload or {}
        video, audio = x
        sides = video.shape[2:]
        if len(video) != 1:
            raise ValueError(f"MiniMax H3 makes one video at a time, but was given a batch of {len(video)}; use a batch size of 1")
        video = comfy.ldm.common_dit.pad_to_patch_size(video, self.patch_size)
        layout = payload.get("layout")
        frames, height, width = video.shape[2:]
        signature = (context.shape[1], frames, height, width, audio.shape[-1])
        if layout is None or layout.signature != signature:
            layout = PackedLayout(*signature, keyframes=payload.get("keyframes"), refs=payload.get("refs"))
        times = self._times(layout, self._sigmas(timestep, options), payload, (denoise_mask, audio_denoise_mask))
        rows = self._rows(layout, video, audio, context, payload, options)
        embedded = self._embedded_times(torch.tensor(times.different, dtype=torch.float32, device=rows.device), rows.dtype)
        turns = self._turns(layout.position_ids.to(rows.device, torch.float32))
        options = {**options, "minimax_h3_layout": layout}
        rows = self._run_blocks(rows, embedded, times.runs(payload.get("text_token_tags")), turns, options)
        segments = [(*layout.span(kind), times.of(kind)) for kind in ("video", "audio")]
        made, sounding = self.final_layer(rows, embedded, *segments)
        t, h, w = self.patch_size
        made = unpatchify_video(made, frames // t, height // h, width // w, self.latents_dim, (t, h, w))
        made = made[:, :, : sides[0], : sides[1], : sides[2]]
        return [-made.to(video.dtype), -unpack_audio(sounding).to(audio.dtype)]

    @staticmethod
    def _times(
        layout: PackedLayout, sigmas: tuple[torch.Tensor, torch.Tensor], payload: Payload, masks: Sequence[torch.Tensor | None]
    ) -> Times:
        """The times of all rows: what a mask keeps counts as less noisy, in the measure in which it keeps it."""
        sigma, audio_sigma = sigmas
        now, audio_now = float(1.0 - sigma), float(1.0 - audio_sigma)
        seen = max(now, float(payload.get("visual_cond_noise_aug", VISUAL_COND_TIMESTEP)))
        heard = max(audio_now, float(payload.get("audio_cond_noise_aug", AUDIO_COND_TIMESTEP)))
        of_kind = {"text": now, "video": now, "audio": audio_now, "cond": seen, "ref_img": seen, "cond_audio": heard, "ref_audio": heard}
        _, frames, height, width, _ = layout.signature
        free, audio_free = masks
        if free is not None:
            free = mask_row_values(free[0, 0].float(), frames, height, width)
        if audio_free is not None:
            audio_free = audio_free[0, 0].float().flatten()
            audio_free = None if bool((audio_free >= WHOLLY_FREE).all()) else audio_free
        of_rows = {}
        for kind, part, level, kept in (
            ("video", free, sigma, max(now, VISUAL_COND_TIMESTEP)),
            ("audio", audio_free, 1.0 - audio_now, max(audio_now, AUDIO_COND_TIMESTEP)),
        ):
            if part is not None:
                rows = (1.0 - part * (level.to(part.device) if torch.is_tensor(level) else level)).clamp(max=kept)
                if len(rows.unique()) == 1:
                    of_kind[kind] = float(rows[0])
                else:
                    of_rows[kind] = rows
        return Times(layout, of_kind, of_rows, (now, audio_now))

    def _rows(
        self, layout: PackedLayout, video: torch.Tensor, audio: torch.Tensor, context: torch.Tensor, payload: Payload, options: Options
    ) -> torch.Tensor:
        """The whole sequence, N x C, in the dtype of *context*."""
        seed = int(payload.get("seed") or 0)
        seen = float(payload.get("visual_cond_noise_aug", VISUAL_COND_TIMESTEP))
        heard = float(payload.get("audio_cond_noise_aug", AUDIO_COND_TIMESTEP))
        shown = [_noised(patchify_video(latent.float(), self.patch_size), seen, seed) for latent in payload.get("cond_video_latents", ())]
        sounds = [_noised(pack_audio(latent.float()), heard, seed + 1) for latent in payload.get("cond_audio_latents", ())]
        device = video.device
        patches = torch.cat([*(rows.to(device) for rows in shown), patchify_video(video.float(), self.patch_size)])
        samples = torch.cat([*(rows.to(device) for rows in sounds), pack_audio(audio.float())])
        text = context[0] if context.shape[-1] == self.hidden_size else self._refined(context[0], options)
        rows = text.new_empty((layout.seq_len, self.hidden_size))
        parts = {"text": text}
        parts |= dict.fromkeys(VIDEO_KINDS, self.video_patch_proj(patches).to(text.dtype))
        parts |= dict.fromkeys(AUDIO_KINDS, self.audio_patch_proj(samples).to(text.dtype))
        taken = [0] * MODALITIES
        for start, stop, kind in layout.segments:
            modality = MODALITY[kind]
            rows[start:stop] = parts[kind][taken[modality] : taken[modality] + stop - start]
            taken[modality] += stop - start
        return rows

    def _embedded_times(self, times: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """*times* as the blocks take them: embedded, or places on the curve between the points that the file holds."""
        if not self.use_adaln_curves:
            return self.time_embedder(times).to(dtype)
        curve = self.adaln_t_table.to(times.device)
        place = times.clamp(0.0, 1.0) * (len(curve) - 1)
        before = place.floor().long().clamp(max=len(curve) - 2)
        return torch.lerp(curve[before], curve[before + 1], (place - before)[:, None])

    def _turns(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the turns of *places* (N x 3): N x pairs, those of time, lines and columns behind each other."""
        frequencies: Any = self.rope.inv_freq
        angles = (places[:, :, None] * frequencies.to(places.device, torch.float32)).flatten(1)
        return angles.cos(), angles.sin()

    def _run_blocks(
        self, rows: torch.Tensor, embedded: torch.Tensor, runs: list[Run], turns: tuple[torch.Tensor, torch.Tensor], options: Options
    ) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                names = ("img", "t_emb", "mod_segments", "rope_freqs")
                return {"img": block(*(given[name] for name in names), transformer_options=given["transformer_options"])}

            given = {"img": rows, "t_emb": embedded, "mod_segments": runs, "rope_freqs": turns, "transformer_options": options}
            rows = run_block(options, ("double_block", number), given, original)["img"]
        return rows


def _noised(rows: torch.Tensor, time: float, seed: int) -> torch.Tensor:
    """*rows* at *time* (1: without noise), with the noise of *seed*; the same noise for all that is shown."""
    if time >= 1.0:
        return rows
    noise = torch.randn(rows.shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)
    return time * rows + (1.0 - time) * noise.to(rows.device)
