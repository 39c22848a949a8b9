"""Frames that guide an LTX video: where they stand in its latent, and the nodes that add them and take them off.

A guide's latent stands behind the video's own; its conditioning says where in the video it belongs (``keyframe_idxs``: batch x 3 x tokens
x 2, in frames and pixels) and how much it counts (``guide_attention_entries``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import sides_and_latent

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
patchifiers = lazy_module("comfy.ldm.lightricks.symmetric_patchifier")

CATEGORY = "model/conditioning/ltxv"
CHANNELS = 128
ICLoRAParameters = io.Custom("IC_LORA_PARAMETERS")
FACTOR = "reference_downscale_factor"
Sides = tuple["Conditioning", "Conditioning"]


def conditioning_get_any_value(conditioning: Conditioning, key: str, default: Any = None) -> Any:
    """The first value of *key* in *conditioning*."""
    return next((options[key] for _, options in conditioning if key in options), default)


def get_noise_mask(latent: Latent) -> Tensor:
    """A new mask of what is to be made in *latent*: its own, or ones for each frame (batch x 1 x frames x 1 x 1)."""
    mask, samples = latent.get("noise_mask"), latent["samples"]
    if mask is None:
        return torch.ones((samples.shape[0], 1, samples.shape[2], 1, 1), dtype=torch.float32, device=samples.device)
    return mask.clone()


def get_keyframe_idxs(cond: Conditioning, latent_shape: Sequence[int] | None = None) -> tuple[Tensor | None, int]:
    """The places of the guides in *cond*, and how many latent frames they have; *latent_shape*: that of the latent with them."""
    places = conditioning_get_any_value(cond, "keyframe_idxs")
    if places is None:
        return None, 0
    if latent_shape is not None and len(latent_shape) == 5:
        return places, places.shape[2] // (latent_shape[-2] * latent_shape[-1])
    entries = conditioning_get_any_value(cond, "guide_attention_entries")
    if entries:
        return places, sum(entry["latent_shape"][0] for entry in entries)
    return places, len(torch.unique(places[:, 0, :, 0]))


def _with_entry(cond: Conditioning, entry: Mapping[str, Any]) -> Conditioning:
    """*cond* with one more guide's *entry*."""
    known = (options.get("guide_attention_entries") for _, options in cond)
    before: list[Any] = next((entries for entries in known if entries is not None), [])
    return node_helpers.conditioning_set_values(cond, {"guide_attention_entries": [*before, entry]})


def add_keyframe_index(
    cond: Conditioning, frame_idx: int, guide: Tensor, scale_factors: Sequence[int], spread: int = 1, causal_fix: bool | None = None
) -> Conditioning:
    """*cond* with the places of one more *guide* that begins at the frame *frame_idx*.

    *spread*: of so many cells along each side one is the guide's, and spans them all. *causal_fix*: its first cell spans one frame only.
    """
    known, _ = get_keyframe_idxs(cond)
    _, cells = patchifiers.SymmetricPatchifier(1, start_end=True).patchify(guide)
    if causal_fix is None:
        causal_fix = frame_idx == 0 or guide.shape[2] == 1
    places = patchifiers.latent_to_pixel_coords(cells, scale_factors, causal_fix=causal_fix)
    places[:, 0] += frame_idx
    wider = (spread - 1) * torch.tensor(scale_factors[1:], device=places.device)
    places[:, 1:, :, 1:] += wider.view(1, -1, 1, 1).to(places)
    return node_helpers.conditioning_set_values(cond, {"keyframe_idxs": places if known is None else torch.cat((known, places), dim=2)})


def spread_out(guide: Tensor, factor: int) -> tuple[Tensor, Tensor | None]:
    """*guide* with *factor* - 1 empty cells after each along both sides, and a mask that is 1 where it is and -1 elsewhere."""
    if factor <= 1:
        return guide, None
    shape = (*guide.shape[:3], guide.shape[3] * factor, guide.shape[4] * factor)
    spread = guide.new_zeros(shape)
    spread[..., ::factor, ::factor] = guide
    mask = guide.new_full((shape[0], 1, *shape[2:]), -1.0)
    mask[..., ::factor, ::factor] = 1.0
    return spread, mask


def _both_sides(mask: Tensor, height: int, width: int) -> Tensor:
    """*mask* in full, where it has one value for a side."""
    return mask.expand(-1, -1, -1, height, width) if 1 in mask.shape[3:] else mask


def append_keyframe(
    sides: Sides,
    frame_idx: int,
    latent_image: Tensor,
    noise_mask: Tensor,
    guide: Tensor,
    strength: float,
    scale_factors: Sequence[int],
    guide_mask: Tensor | None = None,
    spread: int = 1,
    causal_fix: bool | None = None,
) -> tuple[Sides, Tensor, Tensor]:
    """Both conditionings, the latent and its mask, with one more *guide*. Raises ``ValueError`` for latents of another kind."""
    if latent_image.shape[1] != CHANNELS or guide.shape[1] != CHANNELS:
        raise ValueError("guides are added to the video's latent; separate it from that of the sound first (LTXVSeparateAVLatent)")
    positive, negative = (add_keyframe_index(side, frame_idx, guide, scale_factors, spread, causal_fix) for side in sides)
    if guide_mask is None:
        shape = (noise_mask.shape[0], 1, guide.shape[2], *noise_mask.shape[3:])
        mask = noise_mask.new_full(shape, max(0.0, 1.0 - strength))  # beyond 1 only attention grows
    else:
        height, width = (max(noise_mask.shape[axis], guide_mask.shape[axis]) for axis in (3, 4))
        noise_mask, mask = _both_sides(noise_mask, height, width), _both_sides(guide_mask, height, width) - strength
    return (positive, negative), torch.cat((latent_image, guide), dim=2), torch.cat((noise_mask, mask), dim=2)


def begin_of_guide(sides: Sides, latent_shape: Sequence[int], frame_idx: int, frames_per_cell: int) -> int:
    """The frame *frame_idx*, from the end of the video where it is negative; guides that are there do not count."""
    if frame_idx >= 0:
        return frame_idx
    _, guides = get_keyframe_idxs(sides[0], latent_shape)
    return max((latent_shape[2] - guides - 1) * frames_per_cell + 1 + frame_idx, 0)


class GetICLoRAParameters(io.ComfyNode):
    """Reads from a LoRA's file what guides must be like for it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GetICLoRAParameters",
            display_name="Get IC-LoRA Parameters",
            description="Reads what the metadata of a model's LoRA say of guides, for LTXVAddGuide.",
            category=CATEGORY,
            search_aliases=["ic-lora", "ic lora", "iclora", "downscale factor", "reference downscale"],
            inputs=[io.Model.Input("iclora_model", tooltip="The model as the LoRA loader of that LoRA gives it.")],
            outputs=[
                ICLoRAParameters.Output("iclora_parameters", tooltip="For LTXVAddGuide, where the LoRA needs guides of its own kind.")
            ],
        )

    @classmethod
    def execute(cls, iclora_model: ModelPatcher) -> io.NodeOutput:
        """By how much guides are smaller than the video; 1 where the file does not say."""
        metadata: Mapping[str, Any] = iclora_model.get_attachment("lora_metadata") or {}
        stated = next((value for key, value in metadata.items() if key.endswith(FACTOR)), None)
        return io.NodeOutput({FACTOR: smaller_by({FACTOR: stated})})


def smaller_by(parameters: Mapping[str, Any] | None) -> int:
    """By how much guides are smaller than the video, from IC-LoRA *parameters*; 1 where these say nothing that is a number."""
    try:
        return max(1, round(float((parameters or {}).get(FACTOR, 1))))
    except (TypeError, ValueError):
        return 1


class LTXVAddGuide(io.ComfyNode):
    """Adds a picture or video that guides an LTX video from a frame on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVAddGuide",
            category=CATEGORY,
            inputs=[
                *(io.Conditioning.Input("positive"), io.Conditioning.Input("negative"), io.Vae.Input("vae"), io.Latent.Input("latent")),
                io.Image.Input("image", tooltip="A picture, or a video of 8·n + 1 frames; of a longer one the rest is left out."),
                io.Int.Input(
                    "frame_idx",
                    default=0,
                    min=-9999,
                    max=9999,
                    tooltip="The frame from which on it guides; negative: counted from the end. Videos of 9 or more frames begin at a "
                    "multiple of 8, to which others are rounded down.",
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Mask.Input("attention_mask", optional=True, tooltip="Where it counts, times strength: a mask of its pixels."),
                ICLoRAParameters.Input(
                    "iclora_parameters", optional=True, tooltip="What an IC-LoRA needs, from Get IC-LoRA Parameters; for this guide alone."
                ),
            ],
            outputs=sides_and_latent(),
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        latent: Latent,
        image: Tensor,
        frame_idx: int,
        strength: float,
        attention_mask: Tensor | None = None,
        iclora_parameters: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        """Both conditionings and the latent with the guide. Raises ``ValueError`` for one that does not fit into the video."""
        factors: Any = vae.downscale_index_formula
        samples, mask, factor = latent["samples"], get_noise_mask(latent), smaller_by(iclora_parameters)
        frames, height, width = samples.shape[2:]
        if height % factor or width % factor:
            raise ValueError(
                f"the IC-LoRA takes guides that are {factor} times smaller, but {width} x {height} cells do not divide by that"
            )
        sides = (positive, negative)
        begin = begin_of_guide(sides, samples.shape, frame_idx, factors[0])
        whole = (len(image) - 1) // factors[0] * factors[0] + 1
        alone = begin == 0 or whole == 1  # else the autoencoder sees one frame before it, whose latent is left out
        guide = _encoded(vae, image if alone else torch.cat((image[:1], image)), height, width, factors, factor)
        guide = guide if alone else guide[:, :, 1:]
        shown, length = list(guide.shape[2:]), whole if alone else (len(image) // factors[0]) * factors[0]
        guide, guide_mask = spread_out(guide, factor)
        if length > 1 and begin:
            begin = (begin - 1) // factors[0] * factors[0] + 1
        cell = (begin + factors[0] - 1) // factors[0]
        if cell + guide.shape[2] > frames:
            raise ValueError(f"the guide has {guide.shape[2]} latent frames from {cell} on, but the video has {frames}: shorten the guide")
        sides, samples, mask = append_keyframe(sides, begin, samples, mask, guide, strength, factors, guide_mask, factor, alone)
        entry = {
            "pre_filter_count": guide.shape[2] * guide.shape[3] * guide.shape[4],
            "strength": strength,
            "pixel_mask": None if attention_mask is None else attention_mask[None, None],
            "latent_shape": shown,
        }
        return io.NodeOutput(*(_with_entry(side, entry) for side in sides), {"samples": samples, "noise_mask": mask})

    generate = execute


def _encoded(vae: VAE, images: Tensor, height: int, width: int, factors: Sequence[int], factor: int) -> Tensor:
    """The latent of the frames *images*, as many as fill latent ones, of the sides of *height* x *width* cells, *factor* times smaller."""
    kept = images[: (len(images) - 1) // factors[0] * factors[0] + 1]
    wide, high = (int(cells * pixels / factor) for cells, pixels in ((width, factors[1]), (height, factors[2])))
    pixels = comfy.utils.common_upscale(kept.movedim(-1, 1), wide, high, "bilinear", crop="center").movedim(1, -1)
    return vae.encode(pixels[..., :3])


class LTXVCropGuides(io.ComfyNode):
    """Takes the guides off an LTX video's latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVCropGuides",
            category=CATEGORY,
            inputs=[io.Conditioning.Input("positive"), io.Conditioning.Input("negative"), io.Latent.Input("latent")],
            outputs=sides_and_latent(),
        )

    @classmethod
    def execute(cls, positive: Conditioning, negative: Conditioning, latent: Latent) -> io.NodeOutput:
        """Both conditionings without guides, and the latent without their frames."""
        samples, mask = latent["samples"].clone(), get_noise_mask(latent)
        _, guides = get_keyframe_idxs(positive, samples.shape)
        if not guides:
            return io.NodeOutput(positive, negative, {"samples": samples, "noise_mask": mask})
        nothing = {"keyframe_idxs": None, "guide_attention_entries": None}
        sides = (node_helpers.conditioning_set_values(side, nothing) for side in (positive, negative))
        return io.NodeOutput(*sides, {"samples": samples[:, :, :-guides], "noise_mask": mask[:, :, :-guides]})

    crop = execute
