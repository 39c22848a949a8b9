"""Qwen-Image's network in ComfyUI's tree, published weight names and hooks: the plain model, Edit, Edit-Plus and Layered.

Shapes: B batch, I tokens of the picture and its references, T tokens of text, C width of a token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.common_dit
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.qwen_image.layers import EPS, GELU, Attention, FeedForward, LastLayer, QwenImageTransformerBlock, QwenTimestepProjEmbeddings
from comfy.ldm.qwen_image.reference_places import ReferencePlaces
from comfy.placeholders import placeholders

__all__ = [
    "GELU",
    "Attention",
    "FeedForward",
    "LastLayer",
    "QwenImageTransformer2DModel",
    "QwenImageTransformerBlock",
    "QwenTimestepProjEmbeddings",
]

AT_TIME_ZERO = "index_timestep_zero"
ROPE_THETA = 10000

__getattr__, __dir__ = placeholders(__name__, "Qwen Image models", "apply_rotary_emb()")


class QwenImageTransformer2DModel(DiffusionTransformer):
    """The network. *default_ref_method* says where reference pictures stand, see :mod:`comfy.ldm.qwen_image.reference_places`.

    Patches of ``transformer_options``: ``post_input`` (tokens and places before the first block), ``double_block`` (after each block),
    ``attn1_patch``, and ``patches_replace["dit"]`` for ``("double_block", number)``.
    """

    PATCH_BLOCKS = {"double_block": "transformer_blocks"}

    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 64,
        out_channels: int | None = 16,
        num_layers: int = 60,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 3584,
        pooled_projection_dim: int = 768,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        default_ref_method: str = "index",
        image_model: str | None = None,
        final_layer: bool = True,
        use_additional_t_cond: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        placed = {"dtype": dtype, "device": device}
        self.dtype = dtype
        self.patch_size = patch_size
        self.in_channels, self.out_channels = in_channels, out_channels or in_channels
        self.inner_dim = width = num_attention_heads * attention_head_dim
        self.default_ref_method = default_ref_method
        self.pe_embedder = EmbedND(dim=attention_head_dim, theta=ROPE_THETA, axes_dim=list(axes_dims_rope))
        self.time_text_embed = QwenTimestepProjEmbeddings(width, pooled_projection_dim, use_additional_t_cond, **kept)
        self.txt_norm = operations.RMSNorm(joint_attention_dim, eps=EPS, **placed)
        self.img_in = operations.Linear(in_channels, width, **placed)
        self.txt_in = operations.Linear(joint_attention_dim, width, **placed)
        self.transformer_blocks = torch.nn.ModuleList(
            QwenImageTransformerBlock(width, num_attention_heads, attention_head_dim, **kept) for _ in range(num_layers)
        )
        if default_ref_method == AT_TIME_ZERO:
            self.register_buffer("__index_timestep_zero__", torch.tensor([]))  # saved again, as the mark of such files
        if final_layer:
            self.norm_out = LastLayer(width, width, **kept)
            self.proj_out = operations.Linear(width, patch_size**2 * self.out_channels, **placed)

    def process_img(
        self, x: torch.Tensor, index: int = 0, h_offset: int = 0, w_offset: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Size]:
        """(tokens B x I x patch values, their places B x I x 3, the padded shape) of *x* (B x channels x frames x height x width).

        Places are frame (*index* if there is but one), row and column, counted from the middle; offsets are in latent pixels.
        """
        patch = self.patch_size
        batch, _, frames, height, width = x.shape
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (1, patch, patch))
        tokens = padded.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))  # B C F rows patch columns patch
        tokens = tokens.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        rows, columns = _patches(height, patch), _patches(width, patch)
        places = torch.zeros((frames, rows, columns, 3), device=x.device)
        places[..., 0] = torch.arange(frames, device=x.device)[:, None, None] if frames > 1 else index
        places[..., 1] = torch.arange(rows, device=x.device)[:, None] + (_patches(h_offset, patch) - rows // 2)
        places[..., 2] = torch.arange(columns, device=x.device) + (_patches(w_offset, patch) - columns // 2)
        return tokens, places.flatten(0, 2).expand(batch, -1, -1), padded.shape

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        additional_t_cond: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, attention_mask, ref_latents, additional_t_cond, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        additional_t_cond: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        control: Mapping[str, Sequence[Any]] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timesteps* B (0 to 1), *context* B x T x width of the text encoder.

        *attention_mask*: B x T, 0 where there is no text (integers) or what is added to scores. *ref_latents*: pictures to look at, each
        like *x*; ``ref_latents_method`` says where they stand. *control*: residuals for the first blocks under ``input``.
        """
        options = {} if transformer_options is None else dict(transformer_options)
        mask = attention_mask
        if mask is not None and not torch.is_floating_point(mask):
            mask = (mask - 1).to(x.dtype) * torch.finfo(x.dtype).max
        image, image_places, padded = self.process_img(x)
        own_tokens, zero_from = image.shape[1], None
        if ref_latents is not None:
            method = kwargs.get("ref_latents_method", self.default_ref_method)
            image, image_places, lengths = self._with_references(image, image_places, ref_latents, method)
            options["reference_image_num_tokens"] = lengths
            if method == AT_TIME_ZERO and lengths:
                timesteps, zero_from = torch.cat([timesteps, timesteps * 0]), own_tokens
        image = self.img_in(image)
        text = self.txt_in(self.txt_norm(context))
        time = self.time_text_embed(timesteps, image, additional_t_cond)
        state = {"img": image, "txt": text, "img_ids": image_places, "txt_ids": self._text_places(x, context)}
        for patch in options.get("patches", {}).get("post_input", ()):
            state = {**state, **patch({**state, "transformer_options": options})}
        rotations = self.pe_embedder(torch.cat((state["txt_ids"], state["img_ids"]), dim=1)).to(x.dtype).contiguous()
        image = self._run_blocks(x, state, mask, time, rotations, zero_from, options, control)
        image = self.norm_out(image, time if zero_from is None else time.chunk(2)[0])
        return self._as_latent(self.proj_out(image)[:, :own_tokens], padded)[..., : x.shape[-2], : x.shape[-1]]

    def _with_references(
        self, image: torch.Tensor, places: torch.Tensor, ref_latents: Sequence[torch.Tensor], method: str
    ) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Tokens and places with those of the reference pictures behind them, and how many each of these has."""
        stand = ReferencePlaces(method)
        parts = [(image, places)]
        for latent in ref_latents:
            index, top, left = stand.next(latent)
            parts.append(self.process_img(latent, index, top, left)[:2])
        return torch.cat([part[0] for part in parts], 1), torch.cat([part[1] for part in parts], 1), [len(part[0][0]) for part in parts[1:]]

    def _text_places(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """B x T x 3: the text stands beyond the picture's corner, on its diagonal."""
        start = max(_patches(side, self.patch_size) // 2 for side in x.shape[-2:])
        places = torch.arange(start, start + context.shape[1], device=x.device)
        return places[None, :, None].expand(len(x), -1, 3)

    def _run_blocks(
        self,
        x: torch.Tensor,
        state: Mapping[str, torch.Tensor],
        mask: torch.Tensor | None,
        time: torch.Tensor,
        rotations: torch.Tensor,
        zero_from: int | None,
        options: dict[str, Any],
        control: Mapping[str, Sequence[Any]] | None,
    ) -> torch.Tensor:
        """The picture's tokens after the last block."""
        image, text = state["img"], state["txt"]
        residuals = (control or {}).get("input") or ()
        options |= {"total_blocks": len(self.transformer_blocks), "block_type": "double"}
        for number, block in enumerate(self.transformer_blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                new_text, new_image = block(
                    hidden_states=given["img"],
                    encoder_hidden_states=given["txt"],
                    encoder_hidden_states_mask=mask,
                    temb=given["vec"],
                    image_rotary_emb=given["pe"],
                    timestep_zero_index=zero_from,
                    transformer_options=given["transformer_options"],
                )
                return {"txt": new_text, "img": new_image}

            given = {"img": image, "txt": text, "vec": time, "pe": rotations, "transformer_options": options}
            out = run_block(options, ("double_block", number), given, original)
            image, text = out["img"], out["txt"]
            for patch in options.get("patches", {}).get("double_block", ()):
                seen = {"img": image, "txt": text, "x": x, "block_index": number, "transformer_options": options}
                out = patch(seen)
                image, text = out["img"], out["txt"]
            residual = residuals[number] if number < len(residuals) else None
            if residual is not None:
                image[:, : residual.shape[1]] += residual
        return image

    def _as_latent(self, tokens: torch.Tensor, padded: torch.Size) -> torch.Tensor:
        """Tokens of patches (B x I x values) as a latent of *padded*'s frames, height and width."""
        patch = self.patch_size
        rows, columns = padded[-2] // patch, padded[-1] // patch
        cells = tokens.reshape(len(tokens), padded[-3], rows, columns, -1, patch, patch)
        return cells.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4)


def _patches(length: int, patch: int) -> int:
    """How many patches *length* latent pixels take, half a patch counting as one."""
    return (length + patch // 2) // patch
