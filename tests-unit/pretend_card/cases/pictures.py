"""Autoencoders, previews, and nodes on latents, pictures and masks."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from engine import Engine

import comfy.utils
from cases.registry import case
from comfy.cli_args import LatentPreviewMethod, args


@case("decoded and encoded", quick=True)
def round_trip(e: Engine) -> Any:
    vae = e.checkpoint()[2]
    latent = e.first("VAEEncode", pixels=e.picture(70, 3), vae=vae)
    return latent, e.node("VAEDecode", samples=latent, vae=vae)


@case("decoded and encoded in tiles", quick=True)
def tiles(e: Engine) -> Any:
    vae = e.checkpoint()[2]
    latent = e.first("VAEEncodeTiled", pixels=e.picture(160), vae=vae, tile_size=64, overlap=16)
    return latent, e.node("VAEDecodeTiled", samples=latent, vae=vae, tile_size=64, overlap=16)


DECODER_MIB = 8  # the approximating decoder's weights and what it computes with: here as much as the model, in life a hundredth of it


def _preview(method: str) -> None:
    @case(f"previews {method}", quick=method == "latent2rgb", extra_mib=DECODER_MIB if method == "taesd" else 0)
    def run(e: Engine) -> Any:
        model, _, _, positive, negative = e.parts()
        before, shown = args.preview_method, []
        args.preview_method = LatentPreviewMethod.from_string(method)
        comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: shown.append(preview))
        try:
            samples = e.sample(model, positive, negative, e.latent(batch=2))
        finally:
            comfy.utils.set_progress_bar_global_hook(None)
            args.preview_method = before
        assert any(preview is not None for preview in shown)
        levels = [torch.from_numpy(numpy.array(preview[1])).float() for preview in shown if preview is not None]
        return samples, [level / 255 for level in levels]


for _method in ("latent2rgb", "taesd", "auto"):
    _preview(_method)


@case("nodes on latents", extra_mib=4)  # the autoencoder's tiles are no smaller than these pictures, so there is no way with less memory
def latents(e: Engine) -> Any:
    vae = e.checkpoint()[2]
    one, other = (e.first("VAEEncode", pixels=pixels, vae=vae) for pixels in (e.picture(128), 1 - e.picture(128)))
    both = {"samples1": one, "samples2": other}
    sharpen = e.first("LatentOperationSharpen", sharpen_radius=3, sigma=1.0, alpha=0.2)
    return [
        e.node("LatentUpscale", samples=one, upscale_method="bislerp", width=192, height=160, crop="center"),
        e.node("LatentUpscaleBy", samples=one, upscale_method="bicubic", scale_by=1.5),
        e.node("LatentRotate", samples=one, rotation="90 degrees"),
        e.node("LatentFlip", samples=one, flip_method="x-axis: vertically"),
        e.node("LatentComposite", samples_to=one, samples_from=other, x=32, y=16, feather=16),
        e.node("LatentBlend", **both, blend_factor=0.3),
        e.node("LatentCrop", samples=one, width=64, height=64, x=8, y=16),
        e.node("LatentFromBatch", samples=e.first("RepeatLatentBatch", samples=one, amount=3), batch_index=1, length=2),
        *(e.node(name, **both) for name in ("LatentAdd", "LatentSubtract", "LatentBatch")),
        e.node("LatentMultiply", samples=one, multiplier=0.5),
        e.node("LatentInterpolate", **both, ratio=0.4),
        e.node("LatentConcat", **both, dim="x"),
        e.node("LatentCompositeMasked", destination=one, source=other, x=8, y=8, resize_source=False, mask=e.mask(128)),
        e.node("LatentApplyOperation", samples=one, operation=sharpen),
    ]


@case("nodes on pictures")
def pictures(e: Engine) -> Any:
    one, other, mask = e.picture(), 1 - e.picture(), e.mask()
    scale = {"width": 96, "height": 80, "crop": "center"}
    methods = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
    made = [e.node("ImageScale", image=one, upscale_method=method, **scale) for method in methods]
    modes = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
    made += [e.node("ImageBlend", image1=one, image2=other, blend_factor=0.4, blend_mode=mode) for mode in modes]
    operations = ("erode", "dilate", "open", "close", "gradient")
    made += [e.node("Morphology", image=one, operation=operation, kernel_size=3) for operation in operations]
    return [
        *made,
        e.node("ImageBatch", image1=one, image2=e.first("ImageScaleBy", image=other, upscale_method="area", scale_by=0.5)),
        e.node("ImagePadForOutpaint", image=one, left=8, top=16, right=0, bottom=8, feathering=12),
        e.node("ImageBlur", image=one, blur_radius=2, sigma=1.0),
        e.node("ImageSharpen", image=one, sharpen_radius=1, sigma=1.0, alpha=0.5),
        e.node("ImageQuantize", image=one, colors=16, dither="bayer-4"),
        e.node("ImageCompositeMasked", destination=one, source=other, x=8, y=8, resize_source=True, mask=mask),
        e.node("PorterDuffImageComposite", source=one, source_alpha=mask, destination=other, destination_alpha=1 - mask, mode="SRC_OVER"),
        e.node("SplitImageWithAlpha", image=e.first("JoinImageWithAlpha", image=one, alpha=mask)),
        e.node("EmptyImage", width=32, height=32, batch_size=1, color=0x336699),
        e.node("ImageCrop", image=one, width=32, height=32, x=8, y=8),
    ]


@case("nodes on masks")
def masks(e: Engine) -> Any:
    mask = e.mask()
    solid = e.first("SolidMask", value=0.5, width=64, height=64)
    operations = ("multiply", "add", "subtract", "and", "or", "xor")
    return [
        *(e.node("MaskComposite", destination=mask, source=solid, x=4, y=4, operation=operation) for operation in operations),
        e.node("MaskToImage", mask=mask),
        e.node("ImageToMask", image=e.picture(), channel="green"),
        e.node("ImageColorToMask", image=torch.round(e.picture()), color=0xFFFFFF),
        e.node("InvertMask", mask=mask),
        e.node("CropMask", mask=mask, x=8, y=8, width=32, height=32),
        e.node("FeatherMask", mask=mask, left=8, top=8, right=8, bottom=8),
        e.node("GrowMask", mask=mask, expand=5, tapered_corners=True),
        e.node("ThresholdMask", mask=mask, value=0.5),
    ]
