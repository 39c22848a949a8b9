"""Core nodes that decode latents to pictures (B×H×W×C in 0…1) and encode pictures: whole, in tiles and for inpainting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import whole

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

LATENT = "model/latent"
GREY = 0.5
PIXELS_PER_CELL = 8
FEWEST_TILES_PER_OVERLAP = 4


def _pictures_latent(samples: Latent) -> Tensor:
    """The latent of pictures in *samples*: of several in one the first, a video's."""
    latent = samples["samples"]
    return latent.unbind()[0] if latent.is_nested else latent


def _as_images(pictures: Tensor) -> Tensor:
    """The frames of a video (B×T×H×W×C) as one batch."""
    return pictures.flatten(0, 1) if pictures.ndim == 5 else pictures


def _tile_inputs(step: int) -> dict[str, Any]:
    return {
        "tile_size": whole(512, 64, 4096, step, advanced=True),
        "overlap": whole(64, 0, 4096, 32, advanced=True),
        "temporal_size": whole(64, 8, 4096, 4, tooltip="For video autoencoders: how many frames at a time.", advanced=True),
        "temporal_overlap": whole(8, 4, 4096, 4, tooltip="For video autoencoders: how many frames overlap.", advanced=True),
    }


class VAEDecode:
    """Decodes latents to pictures."""

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_TOOLTIPS = ("The pictures.",)
    FUNCTION = "decode"
    CATEGORY = LATENT
    DESCRIPTION = "Turns latents into pictures."
    SEARCH_ALIASES = ["decode", "decode latent", "latent to image", "render latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The latents to decode."}),
                "vae": ("VAE", {"tooltip": "The autoencoder that decodes."}),
            }
        }

    def decode(self, vae: VAE, samples: Latent) -> tuple[Tensor]:
        """The pictures."""
        return (_as_images(vae.decode(_pictures_latent(samples))),)


class VAEDecodeTiled:
    """Decodes latents in tiles to save memory."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = LATENT

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",), **_tile_inputs(32)}}

    def decode(
        self, vae: VAE, samples: Latent, tile_size: int, overlap: int = 64, temporal_size: int = 64, temporal_overlap: int = 8
    ) -> tuple[Tensor]:
        """The pictures. Tile sizes are in pixels (frames in time); overlaps are cut to a quarter of a tile (half of a tile in time)."""
        overlap = min(overlap, tile_size // FEWEST_TILES_PER_OVERLAP)
        if temporal_size < temporal_overlap * 2:
            temporal_overlap //= 2
        frames_per_cell = vae.temporal_compression_decode()
        tile_t = overlap_t = None
        if frames_per_cell is not None:
            tile_t = max(2, temporal_size // frames_per_cell)
            overlap_t = max(1, min(tile_t // 2, temporal_overlap // frames_per_cell))
        pixels_per_cell = vae.spacial_compression_decode()
        tile = tile_size // pixels_per_cell
        return (
            _as_images(
                vae.decode_tiled(
                    _pictures_latent(samples),
                    tile_x=tile,
                    tile_y=tile,
                    overlap=overlap // pixels_per_cell,
                    tile_t=tile_t,
                    overlap_t=overlap_t,
                )
            ),
        )


class VAEEncode:
    """Encodes pictures to latents."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = LATENT
    SEARCH_ALIASES = ["encode", "encode image", "image to latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",)}}

    def encode(self, vae: VAE, pixels: Tensor) -> tuple[Latent]:
        """The latents."""
        return ({"samples": vae.encode(pixels)},)


class VAEEncodeTiled:
    """Encodes pictures in tiles to save memory."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = LATENT

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",), **_tile_inputs(64)}}

    def encode(
        self, vae: VAE, pixels: Tensor, tile_size: int, overlap: int, temporal_size: int = 64, temporal_overlap: int = 8
    ) -> tuple[Latent]:
        """The latents; tile sizes are in pixels and frames."""
        return (
            {
                "samples": vae.encode_tiled(
                    pixels, tile_x=tile_size, tile_y=tile_size, overlap=overlap, tile_t=temporal_size, overlap_t=temporal_overlap
                )
            },
        )


def _mask_like(mask: Tensor, pixels: Tensor) -> Tensor:
    """*mask* as B×1×H×W in the size of *pixels*."""
    return torch.nn.functional.interpolate(mask.reshape(-1, 1, *mask.shape[-2:]), size=pixels.shape[1:3], mode="bilinear")


def _crop_to_grid(pixels: Tensor, mask: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """*pixels* and *mask* cropped around the middle to multiples of *cell*."""
    for axis, length in enumerate(pixels.shape[1:3]):
        start, kept = length % cell // 2, length // cell * cell
        pixels, mask = pixels.narrow(axis + 1, start, kept), mask.narrow(axis + 2, start, kept)
    return pixels, mask


def _grey_under(mask: Tensor, pixels: Tensor) -> Tensor:
    """A copy of *pixels* that is grey where *mask* (B×1×H×W) is set."""
    kept = (1.0 - mask.round()).movedim(1, -1)
    colours = (pixels[..., :3] - GREY) * kept + GREY
    return torch.cat([colours, pixels[..., 3:]], dim=-1)


class VAEEncodeForInpaint:
    """Encodes a picture with a hole, for a sampler that fills it without knowing what was there."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = LATENT

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",), "mask": ("MASK",), "grow_mask_by": whole(6, 0, 64, 1)}}

    def encode(self, vae: VAE, pixels: Tensor, mask: Tensor, grow_mask_by: int = 6) -> tuple[Latent]:
        """The latent of the picture, grey under *mask*; the mask, grown by *grow_mask_by* pixels, becomes its noise mask."""
        pixels, mask = _crop_to_grid(pixels, _mask_like(mask, pixels), vae.spacial_compression_encode())
        grown = mask
        if grow_mask_by > 0:
            kernel = mask.new_ones((1, 1, grow_mask_by, grow_mask_by))
            padding = math.ceil((grow_mask_by - 1) / 2)
            grown = torch.nn.functional.conv2d(mask.round(), kernel, padding=padding).clamp(0, 1)
        height, width = pixels.shape[1:3]
        return ({"samples": vae.encode(_grey_under(mask, pixels)), "noise_mask": grown[:, :, :height, :width].round()},)


class InpaintModelConditioning:
    """Passes the masked picture and the mask to a model made for inpainting."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")
    FUNCTION = "encode"
    CATEGORY = "model/conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "Also limit the sampler to the mask. Often better; some models do not need it."
        return {
            "required": {
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "vae": ("VAE",),
                "pixels": ("IMAGE",),
                "mask": ("MASK",),
                "noise_mask": ("BOOLEAN", {"default": True, "tooltip": tooltip}),
            }
        }

    def encode(
        self, positive: Conditioning, negative: Conditioning, pixels: Tensor, vae: VAE, mask: Tensor, noise_mask: bool = True
    ) -> tuple[Conditioning, Conditioning, Latent]:
        """Both sides of conditioning with the masked picture and the mask, and the latent of the whole picture."""
        original = pixels
        pixels, mask = _crop_to_grid(pixels, _mask_like(mask, pixels), PIXELS_PER_CELL)
        values = {"concat_latent_image": vae.encode(_grey_under(mask, pixels)), "concat_mask": mask}
        latent = {"samples": vae.encode(original)}
        if noise_mask:
            latent["noise_mask"] = mask
        positive, negative = (node_helpers.conditioning_set_values(conditioning, values) for conditioning in (positive, negative))
        return positive, negative, latent


NODE_CLASS_MAPPINGS = {
    node.__name__: node for node in (VAEDecode, VAEDecodeTiled, VAEEncode, VAEEncodeTiled, VAEEncodeForInpaint, InpaintModelConditioning)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "VAEDecode": "VAE Decode",
    "VAEDecodeTiled": "VAE Decode (Tiled)",
    "VAEEncode": "VAE Encode",
    "VAEEncodeTiled": "VAE Encode (Tiled)",
    "VAEEncodeForInpaint": "VAE Encode (for Inpainting)",
}
