"""The network of Flux models and their relatives, with ComfyUI's arguments, attributes, parameter names and hooks.

Shapes: B batch, N tokens, C channels. Node packs replace ``forward_orig`` and walk ``double_blocks`` and ``single_blocks``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import DoubleStreamBlock, EmbedND, LastLayer, MLPEmbedder, Modulation, SingleStreamBlock, timestep_embedding

Options = dict[str, Any]
Range = tuple[int, int, int]  # first token, end, row of the modulation
TIME_WIDTH = 256


@dataclass
class FluxParams:
    """The sizes and kinds of layers; channels are those of the latent, before it is cut into patches."""

    hidden_size: int
    num_heads: int
    axes_dim: list[int]
    depth: int
    depth_single_blocks: int
    mlp_ratio: float
    context_in_dim: int
    vec_in_dim: int | None
    guidance_embed: bool
    patch_size: int
    in_channels: int
    out_channels: int
    theta: int
    txt_ids_dims: list[int]
    qkv_bias: bool
    ops_bias: bool = True
    global_modulation: bool = False
    txt_norm: bool = False
    mlp_silu_act: bool = False
    yak_mlp: bool = False
    ref_index_scale: float = 1.0
    default_ref_method: str = "offset"


def invert_slices(slices: Sequence[Sequence[int]], length: int) -> list[tuple[int, int]]:
    """The ranges of 0…*length* between the ranges *slices*, in order."""
    gaps, reached = [], 0
    for start, end in sorted(map(tuple, slices)):
        if start > reached:
            gaps.append((reached, start))
        reached = max(reached, end)
    return [*gaps, (reached, length)] if reached < length else gaps


class Flux(DiffusionTransformer):
    """Double blocks over text and picture tokens, then single blocks over all of them.

    Made on *device*, without values. Raises ``ValueError`` for heads that do not fit the width or the axes.
    """

    PATCH_BLOCKS = {"double_block": "double_blocks", "single_block": "single_blocks"}

    def __init__(
        self,
        image_model: str | None = None,
        final_layer: bool = True,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        params = FluxParams(**kwargs)
        width, heads = params.hidden_size, params.num_heads
        if width % heads or sum(params.axes_dim) != width // heads:
            raise ValueError(f"{heads} heads of {sum(params.axes_dim)} values (axes {params.axes_dim}) do not make {width} channels")
        operations = operations or comfy.ops.disable_weight_init
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        made, bias = {**kept, "operations": operations}, params.ops_bias
        patch_area = params.patch_size**2
        self.dtype, self.params, self.patch_size = dtype, params, params.patch_size
        self.in_channels, self.out_channels = params.in_channels * patch_area, params.out_channels * patch_area
        self.hidden_size, self.num_heads = width, heads
        self.pe_embedder = EmbedND(width // heads, params.theta, params.axes_dim)
        self.img_in = operations.Linear(self.in_channels, width, bias=bias, **kept)
        self._build_conditioning(made, bias)
        self.txt_in = operations.Linear(params.context_in_dim, width, bias=bias, **kept)
        self.txt_norm = operations.RMSNorm(params.context_in_dim, **kept) if params.txt_norm else None
        block: dict[str, Any] = {"mlp_ratio": params.mlp_ratio, "modulation": not params.global_modulation, **made}
        block |= {"mlp_silu_act": params.mlp_silu_act, "yak_mlp": params.yak_mlp}
        double = {"qkv_bias": params.qkv_bias, "proj_bias": bias, **block}
        self.double_blocks = torch.nn.ModuleList(DoubleStreamBlock(width, heads, **double) for _ in range(params.depth))
        self.single_blocks = torch.nn.ModuleList(
            SingleStreamBlock(width, heads, bias=bias, **block) for _ in range(params.depth_single_blocks)
        )
        if final_layer:
            self.final_layer = self._build_end(made, bias)

    def _build_conditioning(self, made: dict[str, Any], bias: bool) -> None:
        """Make the layers that embed time, guidance and vector, and the modulations that all blocks share."""
        params, width = self.params, self.params.hidden_size
        self.time_in = MLPEmbedder(TIME_WIDTH, width, bias=bias, **made)
        self.vector_in = None if params.vec_in_dim is None else MLPEmbedder(params.vec_in_dim, width, **made)
        self.guidance_in = MLPEmbedder(TIME_WIDTH, width, bias=bias, **made) if params.guidance_embed else torch.nn.Identity()
        if params.global_modulation:
            self.double_stream_modulation_img = Modulation(width, double=True, bias=False, **made)
            self.double_stream_modulation_txt = Modulation(width, double=True, bias=False, **made)
            self.single_stream_modulation = Modulation(width, double=False, bias=False, **made)

    def _build_end(self, made: dict[str, Any], bias: bool) -> torch.nn.Module:
        return LastLayer(self.hidden_size, 1, self.out_channels, bias=bias, **made)

    @staticmethod
    def parameter_name(key: str) -> str:
        """Files of the authors say ``scale`` for the weight of a norm."""
        return f"{key.removesuffix('.scale')}.weight" if key.endswith("_norm.scale") else key

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        ref_latents: list[torch.Tensor] | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, y, guidance, ref_latents, control, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        ref_latents: list[torch.Tensor] | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timestep* and *guidance* B (0…1), *context* B x tokens x width, *y* B x vector width.

        *ref_latents* are pictures to look at, laid beside *x* by the keyword ``ref_latents_method``; *control* maps input and output to
        residuals for double and single blocks; the keyword ``attention_mask`` is B x tokens x tokens.
        """
        options = {} if transformer_options is None else transformer_options
        batch, _, height, width = x.shape
        rows, columns = self._steps(height), self._steps(width)
        img, img_ids = self.process_img(x, transformer_options=options)
        tokens = img.shape[1]
        zero_ranges = None
        if ref_latents is not None:
            method = kwargs.get("ref_latents_method", self.params.default_ref_method)
            img, img_ids, counts = self._with_references(img, img_ids, ref_latents, method, (rows, columns), options)
            options = {**options, "reference_image_num_tokens": counts}
            if method == "index_timestep_zero" and counts:
                timestep = torch.cat([timestep, timestep * 0], dim=0)
                zero_ranges = [[tokens, img_ids.shape[1]]]
        txt_ids = torch.zeros((batch, context.shape[1], len(self.params.axes_dim)), device=x.device, dtype=torch.float32)
        for axis in self.params.txt_ids_dims:
            txt_ids[:, :, axis] = torch.arange(context.shape[1], device=x.device, dtype=torch.float32)
        mask = kwargs.get("attention_mask")
        settings: Options = {"timestep_zero_index": zero_ranges, "transformer_options": options, "attn_mask": mask}
        out = self.forward_orig(img, img_ids, context, txt_ids, timestep, y, guidance, control, **settings)[:, :tokens]
        side = self.patch_size
        patches = out.unflatten(1, (rows, columns)).unflatten(-1, (-1, side, side))  # B x rows x columns x channels x side x side
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * side, columns * side)[:, :, :height, :width]

    def _steps(self, length: int) -> int:
        """How many patches cover *length* latent pixels, to the nearest."""
        return (length + self.patch_size // 2) // self.patch_size

    def process_img(
        self, x: torch.Tensor, index: float = 0, h_offset: int = 0, w_offset: int = 0, transformer_options: Options | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The patches of latents *x* as tokens, B x N x (channels · area), and their positions, B x N x axes, float32.

        The positions begin at (*index*, *h_offset*, *w_offset*), the last two in latent pixels; ``rope_options`` in *transformer_options*
        stretch and shift them.
        """
        side = self.patch_size
        batch, _, height, width = x.shape
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (side, side))
        patches = padded.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # B x channels x rows x side x columns x side
        tokens = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        rope = (transformer_options or {}).get("rope_options") or {}
        rows, columns = self._steps(height), self._steps(width)
        row_places = _places(rows, self._steps(h_offset) + rope.get("shift_y", 0.0), rope.get("scale_y", 1.0), x.device)
        column_places = _places(columns, self._steps(w_offset) + rope.get("shift_x", 0.0), rope.get("scale_x", 1.0), x.device)
        ids = torch.zeros((rows, columns, len(self.params.axes_dim)), device=x.device, dtype=torch.float32)
        ids[:, :, 0] = index + rope.get("shift_t", 0.0)
        ids[:, :, 1] = row_places[:, None]
        ids[:, :, 2] = column_places[None]
        return tokens, ids.flatten(0, 1).expand(batch, -1, -1)

    def _with_references(
        self,
        img: torch.Tensor,
        img_ids: torch.Tensor,
        references: Sequence[torch.Tensor],
        method: str,
        steps: tuple[int, int],
        options: Options,
    ) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Tokens and positions with those of *references* behind them, and how many tokens each has."""
        sizes = [(reference.shape[-2], reference.shape[-1]) for reference in references]
        latent = (steps[0] * self.patch_size, steps[1] * self.patch_size)
        tokens, ids, counts = [img], [img_ids], []
        for reference, place in zip(references, reference_places(method, sizes, latent, self.params.ref_index_scale)):
            more, more_ids = self.process_img(reference, *place, transformer_options=options)
            tokens.append(more)
            ids.append(more_ids)
            counts.append(more.shape[1])
        return torch.cat(tokens, dim=1), torch.cat(ids, dim=1), counts

    def forward_orig(
        self,
        img: torch.Tensor,
        img_ids: torch.Tensor | None,
        txt: torch.Tensor,
        txt_ids: torch.Tensor,
        timesteps: torch.Tensor,
        y: torch.Tensor | None,
        guidance: torch.Tensor | None = None,
        control: Any = None,
        timestep_zero_index: Sequence[Sequence[int]] | None = None,
        transformer_options: Options | None = None,
        attn_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Patches for tokens *img* and *txt* at positions *img_ids* and *txt_ids* (None: no rotation): B x N x (channels · area).

        The ranges *timestep_zero_index* of picture tokens are modulated for the second half of *timesteps*, the others for the first.
        """
        options = dict(transformer_options or {})
        if img.ndim != 3 or txt.ndim != 3:
            raise ValueError(f"tokens are batch x tokens x channels; these are {list(img.shape)} (picture) and {list(txt.shape)} (text)")
        img = self.img_in(img)
        vec = self._conditioning(timesteps, y, guidance, img)
        txt = self.txt_in(txt if self.txt_norm is None else self.txt_norm(txt))
        for patch in options.get("patches", {}).get("post_input", ()):
            seen = patch({"img": img, "txt": txt, "img_ids": img_ids, "txt_ids": txt_ids, "transformer_options": options})
            img, txt, img_ids, txt_ids = seen["img"], seen["txt"], seen["img_ids"], seen["txt_ids"]
        pe = None if img_ids is None else self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1))
        ranges: list[Range] | None = None
        txt_vec = vec
        if timestep_zero_index is not None:
            ranges = [(start, end, 0) for start, end in invert_slices(timestep_zero_index, img.shape[1])]
            ranges += [(start, end, 1) for start, end in timestep_zero_index]
            txt_vec = vec[: len(vec) // 2]
            vec = torch.stack(vec.chunk(2), dim=1)
        img, txt = self._run_double(img, txt, (vec, txt_vec), pe, attn_mask, ranges, control, options)
        if img.dtype == torch.float16:
            img = torch.nan_to_num(img, nan=0.0)
        img = self._run_single(torch.cat((txt, img), 1), txt.shape[1], vec, pe, attn_mask, ranges, control, options)
        return self.final_layer(img, vec, **({} if ranges is None else {"modulation_dims": ranges}))

    def _conditioning(
        self, timesteps: torch.Tensor, y: torch.Tensor | None, guidance: torch.Tensor | None, img: torch.Tensor
    ) -> torch.Tensor:
        """Time, guidance and vector conditioning, embedded: one row per time. There may be several times per batch entry."""
        vec = self.time_in(timestep_embedding(timesteps, TIME_WIDTH).to(img.dtype))
        added = []
        if self.params.guidance_embed and guidance is not None:
            added.append(self.guidance_in(timestep_embedding(guidance, TIME_WIDTH).to(img.dtype)))
        if self.vector_in is not None:
            if y is None:
                y = img.new_zeros((len(img), self.params.vec_in_dim or 0))
            added.append(self.vector_in(y[:, : self.params.vec_in_dim]))
        for embedded in added:
            vec = vec + (embedded if len(embedded) == 1 else embedded.repeat(len(vec) // len(embedded), 1))
        return vec

    def _double_modulation(self, vec: torch.Tensor, txt_vec: torch.Tensor) -> Callable[[int], Any]:
        """What each double block is given as ``vec``: the conditioning, or the modulations of both streams where blocks share them."""
        shared: Any = vec
        if self.params.global_modulation:
            shared = self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(txt_vec)
        return lambda number: shared

    def _single_modulation(self, vec: torch.Tensor) -> Callable[[int], Any]:
        """The same for single blocks."""
        shared: Any = self.single_stream_modulation(vec)[0] if self.params.global_modulation else vec
        return lambda number: shared

    def _run_double(
        self,
        img: torch.Tensor,
        txt: torch.Tensor,
        vecs: tuple[torch.Tensor, torch.Tensor],
        pe: torch.Tensor | None,
        mask: torch.Tensor | None,
        ranges: list[Range] | None,
        control: Any,
        options: Options,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dims = {} if ranges is None else {"modulation_dims_img": ranges, "modulation_dims_txt": [(0, txt.shape[1], 0)]}
        if self.params.global_modulation:
            dims.pop("modulation_dims_txt", None)
        modulation = self._double_modulation(*vecs)
        options["total_blocks"], options["block_type"] = len(self.double_blocks), "double"
        for number, block in enumerate(self.double_blocks):
            options["block_index"] = number

            def original(args: Any, block: Any = block) -> dict[str, Any]:
                names = ("img", "txt", "vec", "pe", "attn_mask", "transformer_options")
                picture, words = block(**{name: args.get(name) for name in names}, **dims)
                return {"img": picture, "txt": words}

            given = {"img": img, "txt": txt, "vec": modulation(number), "pe": pe, "attn_mask": mask, "transformer_options": options}
            out = run_block(options, ("double_block", number), given, original)
            img, txt = out["img"], out["txt"]
            _add_residual(control, "input", number, img)
        return img, txt

    def _run_single(
        self,
        img: torch.Tensor,
        words: int,
        vec: Any,
        pe: torch.Tensor | None,
        mask: torch.Tensor | None,
        ranges: list[Range] | None,
        control: Any,
        options: Options,
    ) -> torch.Tensor:
        """The picture's tokens after the single blocks; *img* begins with *words* text tokens."""
        modulation = self._single_modulation(vec)
        dims = {}
        if ranges is not None:  # the text belongs to the range that begins with the picture
            dims["modulation_dims"] = [(0 if start == 0 else start + words, end + words, row) for start, end, row in ranges]
        options["total_blocks"], options["block_type"] = len(self.single_blocks), "single"
        options["img_slice"] = [words, img.shape[1]]
        for number, block in enumerate(self.single_blocks):
            options["block_index"] = number

            def original(args: Any, block: Any = block) -> dict[str, Any]:
                names = ("vec", "pe", "attn_mask", "transformer_options")
                return {"img": block(args["img"], **{name: args.get(name) for name in names}, **dims)}

            given = {"img": img, "vec": modulation(number), "pe": pe, "attn_mask": mask, "transformer_options": options}
            img = run_block(options, ("single_block", number), given, original)["img"]
            _add_residual(control, "output", number, img[:, words:])
        return img[:, words:]


def _places(steps: int, start: float, scale: float, device: torch.device) -> torch.Tensor:
    """*steps* positions from *start*, *scale* apart, float32."""
    return torch.linspace(start, (steps - 1) * scale + start, steps=steps, device=device, dtype=torch.float32)


def _add_residual(control: Any, half: str, number: int, tokens: torch.Tensor) -> None:
    """Add the residual that *control* has for block *number* of *half* to the first of *tokens*, in place."""
    residuals = [] if control is None else control.get(half) or []
    if number < len(residuals) and residuals[number] is not None:
        tokens[:, : residuals[number].shape[1]] += residuals[number]


def reference_places(
    method: str, sizes: Sequence[tuple[int, int]], latent: tuple[int, int], index_scale: float
) -> Iterator[tuple[float, int, int]]:
    """Where pictures of *sizes* are laid beside a *latent* (heights and widths in latent pixels): (index, row, column) of each.

    ``index`` and ``index_timestep_zero`` number them; ``uxo`` lays them on the diagonal behind the latent; any other method (``offset``)
    gives all the index 1, below or to the right of each other, whichever grows the field less.
    """
    index, height, width = 0.0, 0, 0
    for rows, columns in sizes:
        if method in ("index", "index_timestep_zero"):
            index += index_scale
            yield index, 0, 0
        elif method == "uxo":
            yield 0, latent[0] + height, latent[1] + width
            height, width = height + rows, width + columns
        else:
            row, column = (0, width) if rows + height > columns + width else (height, 0)
            yield 1, row, column
            height, width = max(height, rows + row), max(width, columns + column)
