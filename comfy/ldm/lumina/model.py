"""The network of Lumina 2 and of Z-Image (turbo, base and omni), in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, T tokens of text, V of what an image encoder saw, I of pictures, N of all, C width of a token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.utils
from comfy.dit.network import DiffusionTransformer
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.lumina.layers import (
    LUMINA_TIME,
    Z_IMAGE_TIME,
    FeedForward,
    FinalLayer,
    JointAttention,
    JointTransformerBlock,
    Ranges,
    apply_gate,
    clamp_fp16,
    invert_slices,
    modulate,
    pad_zimage,
    pos_ids_x,
)
from comfy.ldm.modules.diffusionmodules.mmdit import TimestepEmbedder
from comfy.placeholders import placeholders

__all__ = [
    "FeedForward",
    "FinalLayer",
    "JointAttention",
    "JointTransformerBlock",
    "NextDiT",
    "apply_gate",
    "clamp_fp16",
    "invert_slices",
    "modulate",
    "pad_zimage",
    "pos_ids_x",
]

__getattr__, __dir__ = placeholders(
    __name__, "Z-Image models of pixels", "PixelResBlock DCTFinalLayer SimpleMLPAdaLN NextDiTPixelSpace:NextDiT"
)

PIXELS_PER_SIGHT = 8  # distance of the image encoder's tokens, in places of the latent
Embedded = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens before the joint layers: *feats* B x N x C, the picture's last; *turns* their rotations.

    The picture's patches are the first tokens of the last *image_tokens*. *noisy* are the ranges at the time of sampling where others are
    at time 0 (None: all are).
    """

    feats: torch.Tensor
    turns: torch.Tensor
    image_tokens: int
    noisy: Ranges | None


@dataclass(frozen=True, slots=True)
class _Parts:
    """Makes a network's parts; *sizes* are those of its blocks, *settings* the layers' classes and where their weights are."""

    sizes: tuple[Any, ...]
    z_image: bool
    settings: dict[str, Any]

    def blocks(self, count: int, modulation: bool = True) -> torch.nn.ModuleList:
        kind: dict[str, Any] = {
            "modulation": modulation,
            "z_image_modulation": self.z_image and modulation,
            "operation_settings": self.settings,
        }
        return torch.nn.ModuleList(JointTransformerBlock(number, *self.sizes, **kind) for number in range(count))

    def embedder(self, width: int, target: int) -> torch.nn.Sequential:
        kept = dict(self.settings)
        operations: Any = kept.pop("operations")
        norm = operations.RMSNorm(width, eps=self.sizes[5], **kept)
        return torch.nn.Sequential(norm, operations.Linear(width, target, bias=True, **kept))

    def token(self) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.empty((1, self.sizes[0]), dtype=self.settings["dtype"], device=self.settings["device"]))


class NextDiT(DiffusionTransformer):
    """The network. Z-Image differs by its narrow time embedding, and by tokens that fill text and picture up to a multiple.

    Patches of ``transformer_options``: ``noise_refiner`` and ``double_block``, after each such block.
    """

    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 4,
        dim: int = 4096,
        n_heads: int = 32,
        n_kv_heads: int | None = None,
        n_layers: int = 32,
        n_refiner_layers: int = 2,
        multiple_of: int = 256,
        ffn_dim_multiplier: float = 4.0,
        norm_eps: float = 1e-5,
        qk_norm: bool = False,
        cap_feat_dim: int = 5120,
        axes_dims: Sequence[int] = (16, 56, 56),
        axes_lens: Sequence[int] = (1, 512, 512),
        rope_theta: float = 10000.0,
        z_image_modulation: bool = False,
        time_scale: float = 1.0,
        pad_tokens_multiple: int | None = None,
        clip_text_dim: int | None = None,
        siglip_feat_dim: int | None = None,
        image_model: str | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if dim // n_heads != sum(axes_dims):
            raise ValueError(f"{dim} channels in {n_heads} heads of {dim // n_heads} do not fit rotations of {list(axes_dims)}")
        kept = {"dtype": dtype, "device": device}
        settings = {"operations": operations, **kept}
        sizes = dim, n_heads, n_kv_heads, multiple_of, ffn_dim_multiplier, norm_eps, qk_norm
        make = _Parts(sizes, z_image_modulation, settings)
        self.dtype, self.dim, self.n_heads = dtype, dim, n_heads
        self.in_channels = self.out_channels = in_channels
        self.patch_size, self.time_scale, self.pad_tokens_multiple = patch_size, time_scale, pad_tokens_multiple
        self.axes_dims, self.axes_lens, self.clip_text_dim = axes_dims, axes_lens, clip_text_dim
        time_width = min(dim, LUMINA_TIME)
        self.x_embedder = operations.Linear(patch_size * patch_size * in_channels, dim, bias=True, **kept)
        self.noise_refiner, self.context_refiner = make.blocks(n_refiner_layers), make.blocks(n_refiner_layers, False)
        self.t_embedder = TimestepEmbedder(time_width, output_size=Z_IMAGE_TIME if z_image_modulation else None, **settings)
        self.cap_embedder = make.embedder(cap_feat_dim, dim)
        self.clip_text_pooled_proj = None if clip_text_dim is None else make.embedder(clip_text_dim, clip_text_dim)
        if clip_text_dim is not None:
            joined = operations.Linear(time_width + clip_text_dim, time_width, bias=True, **kept)
            self.time_text_embed = torch.nn.Sequential(torch.nn.SiLU(), joined)
        self.layers = make.blocks(n_layers)
        sees = siglip_feat_dim is not None
        self.siglip_embedder = make.embedder(siglip_feat_dim, dim) if siglip_feat_dim is not None else None
        self.siglip_refiner = make.blocks(n_refiner_layers, False) if sees else None
        self.siglip_pad_token = make.token() if sees else None
        self.final_layer = FinalLayer(dim, patch_size, in_channels, z_image_modulation, settings)
        if pad_tokens_multiple is not None:
            self.x_pad_token, self.cap_pad_token = make.token(), make.token()
        self.rope_embedder = EmbedND(dim=dim // n_heads, theta=rope_theta, axes_dim=axes_dims)

    def _turns(self, places: torch.Tensor) -> torch.Tensor:
        """Rotations of places (B x N x 3): B x N x 1 x D/2 x 2 x 2."""
        return self.rope_embedder(places).movedim(1, 2)

    def embed_cap(
        self, cap_feats: torch.Tensor | None = None, offset: int = 0, bsz: int = 1, device: Any = None, dtype: Any = None
    ) -> tuple[Embedded, Embedded, int]:
        """(tokens), (rotations) of text, which stands in a row from *offset* on, and how many tokens it has without padding."""
        if cap_feats is None:
            length, feats = 0, self.cap_pad_token.to(device=device, dtype=dtype)[None].expand(bsz, self.pad_tokens_multiple or 0, -1)
        else:
            feats = self.cap_embedder(cap_feats)
            length = feats.shape[1]
            if self.pad_tokens_multiple is not None:
                feats, _ = pad_zimage(feats, self.cap_pad_token, self.pad_tokens_multiple)
        places = torch.zeros(bsz, feats.shape[1], 3, dtype=torch.float32, device=device)
        places[:, :, 0] = torch.arange(feats.shape[1], dtype=torch.float32, device=device) + 1.0 + offset
        return (feats,), (self._turns(places),), length

    def embed_all(
        self,
        x: torch.Tensor,
        cap_feats: torch.Tensor | None = None,
        siglip_feats: torch.Tensor | None = None,
        offset: int = 0,
        omni: bool = False,
        transformer_options: dict[str, Any] | None = None,
    ) -> tuple[Embedded, Embedded, int]:
        """Tokens and rotations of text, sight (None without) and picture *x* (B x channels x height x width), and the next free place."""
        (text,), (text_turns,), length = self.embed_cap(cap_feats, offset, 1, x.device, x.dtype)
        assert text is not None
        sight = sight_turns = None
        reached = offset + text.shape[1]
        if omni and self.siglip_embedder is not None:
            reached = offset + length
            sight, sight_turns = self._embed_sight(siglip_feats, reached + 2, x)
        patch = self.patch_size
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        cells = x.unflatten(3, (columns, patch)).unflatten(2, (rows, patch))  # B C rows patch columns patch
        image = self.x_embedder(cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        places = pos_ids_x(reached + 1, rows, columns, 1, x.device, transformer_options=transformer_options)
        if self.pad_tokens_multiple is not None:
            image, missing = pad_zimage(image, self.x_pad_token, self.pad_tokens_multiple)
            places = torch.nn.functional.pad(places, (0, 0, 0, missing))
        return (text, sight, image), (text_turns, sight_turns, self._turns(places)), reached + 2

    def _embed_sight(self, feats: torch.Tensor | None, frame: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and rotations of what an image encoder saw (B x height x width x channels); padding alone for nothing."""
        assert self.siglip_embedder is not None and self.siglip_pad_token is not None and self.pad_tokens_multiple is not None
        if feats is None:
            padding = self.siglip_pad_token.to(x)[None].expand(1, self.pad_tokens_multiple, -1)
            return padding, self._turns(torch.zeros((1, self.pad_tokens_multiple, 3), dtype=torch.float32, device=x.device))
        rows, columns = feats.shape[1:3]
        places = torch.zeros((rows, columns, 3), dtype=torch.float32, device=x.device)
        places[..., 0] = frame
        places[..., 1] = _spread(rows, x.device)[:, None]
        places[..., 2] = _spread(columns, x.device)
        # In the order that ComfyUI gives the values in: channel by channel.
        tokens = self.siglip_embedder(feats.permute(0, 3, 1, 2).reshape(len(feats), rows * columns, feats.shape[3]))
        tokens, missing = pad_zimage(tokens, self.siglip_pad_token, self.pad_tokens_multiple)
        return tokens, self._turns(torch.nn.functional.pad(places.flatten(0, 1)[None], (0, 0, 0, missing)))

    def _contents(
        self, x: torch.Tensor, text: torch.Tensor, references: Mapping[str, Sequence[torch.Tensor]], options: dict[str, Any]
    ) -> Iterator[tuple[bool, Embedded, Embedded]]:
        """Tokens and rotations of everything, one item after the other: the references, the text with the picture, what text is left.

        The flag says whether an item is at the time of sampling.
        """
        pictures, texts, sights = (references[name] for name in ("ref_latents", "ref_contexts", "siglip_feats"))
        place, omni = 0, len(pictures) > 0
        for number, picture in enumerate(pictures):
            own_text, own_sight = (items[number] if number < len(items) else None for items in (texts, sights))
            embedded, turns, place = self.embed_all(picture, own_text, own_sight, place, True, options)
            yield False, embedded, turns
        embedded, turns, place = self.embed_all(x, text, None, place, omni, options)
        yield True, embedded, turns
        for left in texts[len(pictures) :] if omni else ():
            embedded, turns, length = self.embed_cap(left, place, 1, x.device, x.dtype)
            place += length
            yield True, (*embedded, None, None), (*turns, None, None)

    def _refined(
        self,
        x: torch.Tensor,
        text: torch.Tensor,
        time: torch.Tensor,
        references: Mapping[str, Sequence[torch.Tensor]],
        options: dict[str, Any],
    ) -> Tokens:
        """All tokens after the refining layers."""
        parts: tuple[list[Any], ...] = ([], [], [])  # of text, sight, pictures: (at the time of sampling, tokens, rotations)
        for noisy, embedded, turns in self._contents(x, text, references, options):
            for part, tokens, turn in zip(parts, embedded, turns):
                if tokens is not None:
                    part.append((noisy, comfy.utils.repeat_to_batch_size(tokens, len(x)), turn))
        omni = len(references["ref_latents"]) > 0
        joined = [(torch.cat([item[1] for item in part], 1), torch.cat([item[2] for item in part], 1)) for part in parts if part]
        noisy_text, noisy_image = (sum(item[1].shape[1] for item in part if item[0]) for part in (parts[0], parts[2]))
        refined = [self._refine(self.context_refiner, *joined[0], options)]
        if len(joined) == 3:
            assert self.siglip_refiner is not None
            refined.append(self._refine(self.siglip_refiner, *joined[1], options))
        image, image_turns = joined[-1]
        own = [(image.shape[1] - noisy_image, image.shape[1])] if omni else None
        image = self._refine_picture(image, image_turns, refined[0], time, own, x, options)
        feats = torch.cat([*refined, image], dim=1)
        text_tokens, total = refined[0].shape[1], feats.shape[1]
        noisy_ranges = [(total - noisy_image, total), (text_tokens - noisy_text, text_tokens)] if omni else None
        return Tokens(feats, torch.cat([turn for _, turn in joined], dim=1), noisy_image, noisy_ranges)

    @staticmethod
    def _refine(layers: torch.nn.ModuleList, tokens: torch.Tensor, turns: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        for layer in layers:
            tokens = layer(tokens, None, turns, transformer_options=options)
        return tokens

    def _refine_picture(
        self,
        image: torch.Tensor,
        turns: torch.Tensor,
        text: torch.Tensor,
        time: torch.Tensor,
        noisy: Ranges | None,
        x: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor:
        given = {"img_input": image, "txt": text, "pe": turns, "vec": time, "x": x, "block_type": "noise_refiner"}
        for number, layer in enumerate(self.noise_refiner):
            image = layer(image, None, turns, time, timestep_zero_index=noisy, transformer_options=options)
            for patch in options.get("patches", {}).get("noise_refiner", ()):
                image = patch({**given, "img": image, "block_index": number, "transformer_options": options}).get("img", image)
        return image

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, num_tokens, attention_mask, options=options, transformer_options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        attention_mask: torch.Tensor | None = None,
        ref_latents: Sequence[torch.Tensor] = (),
        ref_contexts: Sequence[torch.Tensor] = (),
        siglip_feats: Sequence[torch.Tensor] = (),
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0 to 1), *context* B x T x width of the text encoder.

        *ref_latents* (each like *x*) are pictures to look at, *ref_contexts* texts about them, *siglip_feats* what an image encoder saw of
        them (B x height x width x channels). *num_tokens* and *attention_mask* change nothing: all text is attended to, as in ComfyUI.
        """
        options = {} if transformer_options is None else dict(transformer_options)
        height, width = x.shape[-2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch_size, self.patch_size))
        if len(ref_latents):
            timesteps = torch.cat([timesteps * 0, timesteps])
        time = self._time(1.0 - timesteps, x, kwargs.get("clip_text_pooled"))
        references = {"ref_latents": ref_latents, "ref_contexts": ref_contexts, "siglip_feats": siglip_feats}
        tokens = self._refined(x, context, time, references, options)
        feats = self.final_layer(self._run_layers(x, tokens, time, options), time, timestep_zero_index=tokens.noisy)
        return -self._as_latent(feats[:, -tokens.image_tokens :], x)[:, :, :height, :width]

    def _time(self, times: torch.Tensor, x: torch.Tensor, pooled: torch.Tensor | None) -> torch.Tensor:
        """The embedded times (and the pooled text, for networks that take one): one row per entry of *times*."""
        time = self.t_embedder(times * self.time_scale, dtype=x.dtype)
        if self.clip_text_pooled_proj is None:
            return time
        text = x.new_zeros((len(x), self.clip_text_dim or 0)) if pooled is None else self.clip_text_pooled_proj(pooled)
        return self.time_text_embed(torch.cat((time, text), dim=-1))

    def _run_layers(self, x: torch.Tensor, tokens: Tokens, time: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        feats, first = tokens.feats, tokens.feats.shape[1] - tokens.image_tokens
        given = {"img_input": feats[:, first:], "pe": tokens.turns[:, first:], "vec": time, "x": x}
        options |= {"total_blocks": len(self.layers), "block_type": "double"}
        for number, layer in enumerate(self.layers):
            options["block_index"] = number
            feats = layer(feats, None, tokens.turns, time, timestep_zero_index=tokens.noisy, transformer_options=options)
            for patch in options.get("patches", {}).get("double_block", ()):
                seen = {**given, "img": feats[:, first:], "txt": feats[:, :first], "block_index": number, "transformer_options": options}
                out = patch(seen)
                feats = torch.cat([out.get("txt", seen["txt"]), out.get("img", seen["img"])], dim=1)
        return feats

    def _as_latent(self, tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The first tokens (B x I x values of a patch) as a latent of *x*'s size."""
        patch = self.patch_size
        rows, columns = x.shape[2] // patch, x.shape[3] // patch
        cells = tokens[:, : rows * columns].reshape(len(tokens), rows, columns, patch, patch, self.out_channels)
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _spread(count: int, device: Any) -> torch.Tensor:
    """Places of *count* tokens of sight along one side."""
    return torch.linspace(0, count * PIXELS_PER_SIGHT - 1, steps=count, dtype=torch.float32, device=device).floor()
