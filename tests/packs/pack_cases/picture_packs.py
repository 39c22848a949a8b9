"""Packs around pictures: details, tiles, masks, and the VAE."""

from picture_prompts import node

from pack_cases.case_graphs import Prompt, at, drawn, keep, sample, whole
from pack_cases.sampling_packs import CONDS, REGIONS, STEPS, patched

VAE = at("checkpoint", 2)
RENDERED = {"model": at("checkpoint"), **CONDS, "vae": VAE, **STEPS, "seed": 5}
PIPED = {"steps": 3, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal"}
SEGS = {
    **REGIONS,
    "segs": node("MaskToSEGS", mask=at("picture", 1), crop_factor=1.5),
    "controlnet": node("ControlNetLoader", control_net_name="small-sd15.safetensors"),
}


def detailed(scheduler: str) -> Prompt:
    """Impact: a masked part sampled anew and pasted back."""
    return keep(
        {
            **SEGS,
            "done": node(
                "DetailerForEach",
                image=at("picture"),
                segs=at("segs"),
                clip=at("checkpoint", 1),
                guide_size=96,
                max_size=128,
                noise_mask_feather=0,
                **{**RENDERED, "scheduler": scheduler},
            ),
        },
        at("done"),
    )


def upscaled(control: bool = False, **more) -> Prompt:
    """UltimateSDUpscale in tiles of 64 pixels."""
    applied = {"positive": at("applied")} if control else {}
    graph = {
        **whole(),
        "wide": node("RandomPictures", seed=4, width=128, height=64, count=1),
        "applied": node("ControlNetApply", conditioning=at("positive"), control_net=at("controlnet"), image=at("picture"), strength=0.7),
        "done": node(
            "UltimateSDUpscaleNoUpscale",
            upscaled_image=at("wide"),
            **{**RENDERED, **applied},
            tile_width=64,
            tile_height=64,
            tile_padding=8,
            **more,
        ),
    }
    return keep(graph, at("done"))


CASES: dict[str, dict[str, Prompt]] = {
    "ComfyUI-Impact-Pack": {
        "detailer": detailed("normal"),
        "detailer, AYS SD1": detailed("AYS SD1"),
        "detailer, GITS": detailed("GITS[coeff=1.2]"),
        "iterative upscaling": keep(
            {
                **whole(size=64),
                "upscaler": node("PixelKSampleUpscalerProvider", **RENDERED, denoise=0.6, scale_method="bilinear"),
                "done": node("IterativeLatentUpscale", samples=at("first"), upscale_factor=1.5, steps=2, upscaler=at("upscaler")),
                "first": sample(at("checkpoint")),
            },
            at("done"),
        ),
        "regional sampling": keep(
            {
                **REGIONS,
                "region": node(
                    "RegionalPrompt", mask=at("picture", 1), advanced_sampler=at("base"), variation_seed=3, variation_strength=0.2
                ),
                "done": node(
                    "RegionalSampler", seed=5, steps=4, samples=at("latent"), base_sampler=at("base"), regional_prompts=at("region")
                ),
            },
            at("done"),
        ),
        "wildcards": keep(
            {
                **REGIONS,
                "encoded": node(
                    "ImpactWildcardEncode",
                    model=at("checkpoint"),
                    clip=at("checkpoint", 1),
                    wildcard_text="a {red|blue|green} house <lora:small-whole:0.6>",
                    mode=True,
                    seed=3,
                ),
                "sampled": sample(at("encoded"), at("encoded", 2)),
            },
            at("sampled"),
        ),
        "two samplers": keep(
            {
                **REGIONS,
                "one": node("KSamplerProvider", basic_pipe=at("pipe"), **PIPED, seed=5),
                "two": node("KSamplerProvider", basic_pipe=at("pipe"), **{**PIPED, "cfg": 1.5}, seed=6),
                "done": node(
                    "TwoSamplersForMask", latent_image=at("latent"), base_sampler=at("one"), mask_sampler=at("two"), mask=at("picture", 1)
                ),
            },
            at("done"),
        ),
    },
    "ComfyUI_UltimateSDUpscale": {
        "linear": upscaled(),
        "chess, half tiles": upscaled(mode_type="Chess", seam_fix_mode="Half Tile"),
        "with a ControlNet": upscaled(True),
        "tiled decoding, three at once": upscaled(tiled_decode=True, batch_size=2),
    },
    "ComfyUI-VideoHelperSuite": {
        "VAE in batches": keep(
            {
                **whole(),
                "coded": node("VHS_VAEEncodeBatched", pixels=at("frames"), vae=VAE, per_batch=2),
                "shown": node("VHS_VAEDecodeBatched", samples=at("coded"), vae=VAE, per_batch=2),
            },
            at("coded"),
            at("shown"),
        ),
        "frames": keep(
            {**drawn(), "every": node("VHS_SelectEveryNthImage", images=at("frames"), select_every_nth=2)}, at("every"), at("every", 1)
        ),
    },
    "ComfyUI-KJNodes": {
        "pictures": keep(
            {
                **drawn(),
                "matched": node("ColorMatch", image_ref=at("frames"), image_target=at("picture"), method="reinhard"),
                "resized": node(
                    "ImageResizeKJv2", image=at("picture"), width=96, height=80, upscale_method="lanczos", keep_proportion="pad"
                ),
                "grown": node("GrowMaskWithBlur", mask=at("picture", 1), expand=5, blur_radius=3.0),
            },
            at("resized"),
            at("grown"),
        ),
        "differential diffusion": keep(
            {
                **drawn(),
                "first": sample(at("model")),
                "differ": node("DifferentialDiffusionAdvanced", model=at("model"), samples=at("first"), mask=at("picture", 1)),
                "sampled": sample(at("differ"), latent=at("differ", 1), denoise=0.8),
            },
            at("sampled"),
        ),
        "CFG zero": patched("CFGZeroStarAndInit"),
        "noise": keep(
            {
                **drawn(),
                "noise": node("GenerateNoise", width=64, height=64, seed=3, multiplier=0.5),
                "mixed": node("InjectNoiseToLatent", latents=at("first"), strength=0.3, noise=at("noise"), mask=at("picture", 1)),
                "first": sample(at("model")),
            },
            at("mixed"),
        ),
    },
    "comfyui_controlnet_aux": {
        kind: keep({**drawn(), "done": node(kind, image=at("picture"), resolution=128, **more)}, at("done"))
        for kind, more in {
            "CannyEdgePreprocessor": {},
            "ColorPreprocessor": {},
            "TilePreprocessor": {},
            "ShufflePreprocessor": {"seed": 3},  # at 0 it draws without a seed
            "Scribble_XDoG_Preprocessor": {},
            "ImageIntensityDetector": {},
            "BinaryPreprocessor": {},
            "LineartStandardPreprocessor": {},
        }.items()
    },
    "comfyui-inpaint-nodes": {
        **{
            f"fill, {fill}": keep(
                {
                    **drawn(),
                    "filled": node("INPAINT_MaskedFill", image=at("picture"), mask=at("picture", 1), fill=fill, falloff=4),
                    "blurred": node("INPAINT_MaskedBlur", image=at("filled"), mask=at("picture", 1), blur=15, falloff=4),
                    "grown": node("INPAINT_ExpandMask", mask=at("picture", 1), grow=8),
                },
                at("filled"),
                at("blurred"),
                at("grown"),
            )
            for fill in ("neutral", "telea", "navier-stokes")
        },
        "conditioning": keep(
            {
                **whole(),
                "coded": node("INPAINT_VAEEncodeInpaintConditioning", **CONDS, vae=VAE, pixels=at("picture"), mask=at("picture", 1)),
                "sampled": sample(at("checkpoint"), at("coded"), at("coded", 1), at("coded", 3)),
            },
            at("coded", 2),
            at("sampled"),
        ),
    },
    "ComfyUI-Inpaint-CropAndStitch": {
        mode: keep(
            {
                **whole(),
                "cut": node(
                    "InpaintCropImproved",
                    image=at("picture"),
                    mask=at("picture", 1),
                    mask_blend_pixels=8,
                    output_target_width=96,
                    output_target_height=96,
                    device_mode=mode,
                ),
                "coded": node("VAEEncode", pixels=at("cut", 1), vae=VAE),
                "sampled": sample(at("checkpoint"), latent=at("coded"), denoise=0.6),
                "shown": node("VAEDecode", samples=at("sampled"), vae=VAE),
                "whole": node("InpaintStitchImproved", stitcher=at("cut"), inpainted_image=at("shown")),
            },
            at("cut", 1),
            at("whole"),
        )
        for mode in ("cpu (compatible)", "gpu (much faster)")
    },
    "ComfyUI_LayerStyle": {
        "colours": keep({**drawn(), "done": node("LayerColor: HSV", image=at("picture"), H=20, S=10, V=-10)}, at("done")),
        "blend": keep(
            {
                **drawn(),
                "other": node("RandomPictures", seed=9, width=128, height=128, count=1),
                "done": node(
                    "LayerUtility: ImageBlend V2",
                    background_image=at("picture"),
                    layer_image=at("other"),
                    blend_mode="multiply",
                    opacity=70,
                ),
            },
            at("done"),
        ),
        "mask": keep({**drawn(), "done": node("LayerMask: MaskGrow", mask=at("picture", 1))}, at("done")),
    },
}
