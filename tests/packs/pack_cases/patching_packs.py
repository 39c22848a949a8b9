"""Packs that patch a model or load one their own way, and no pack at all. Each case keeps one latent."""

from typing import Any

from picture_prompts import node

from pack_cases.case_graphs import FAMILIES, Prompt


def sampling(model: Prompt, family: str = "sd15", sampler: str = "euler", steps: int = 3, **more: Any) -> Prompt:
    """A latent sampled with the model that the node "patched" of *model* gives, or without one "model"; *more* changes the sampler."""
    width, pooled = FAMILIES[family]
    nodes = {"model": node("UNETLoader", unet_name=f"small-{family}.safetensors", weight_dtype="default"), **model}
    return {
        **nodes,
        "positive": node("RandomConditioning", seed=1, tokens=77, width=width, pooled=pooled),
        "negative": node("RandomConditioning", seed=2, tokens=77, width=width, pooled=pooled),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "sample": node(
            "KSampler",
            **{
                "model": ["patched" if "patched" in nodes else "model", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "latent_image": ["latent", 0],
                "seed": 5,
                "steps": steps,
                "cfg": 4.0,
                "sampler_name": sampler,
                "scheduler": "normal",
                "denoise": 1.0,
                **more,
            },
        ),
        "keep": node("Keep", value=["sample", 0], name="0"),
    }


def patched(kind: str, family: str = "sd15", **inputs: Any) -> Prompt:
    """A latent sampled with the node *kind* on the model."""
    return sampling({"patched": node(kind, model=["model", 0], **inputs)}, family)


def shown(prompt: Prompt) -> Prompt:
    """*prompt* with its latent's picture kept as well, decoded by the VAE of a whole checkpoint."""
    return {
        **prompt,
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="small-sd15.safetensors"),
        "decoded": node("VAEDecode", samples=["sample", 0], vae=["checkpoint", 2]),
        "keep picture": node("Keep", value=["decoded", 0], name="1"),
    }


GUIDANCE = {"sigma_start": -1.0, "sigma_end": -1.0, "rescale": 0.0, "rescale_mode": "full"}
BLOCK = {"unet_block": "middle", "unet_block_id": 0}
WINDOW = {"sigma_start": -1.0, "sigma_end": -1.0}

PERTURBED: dict[str, Prompt] = {
    "PAG": shown(patched("PerturbedAttention", scale=3.0, adaptive_scale=0.0, unet_block_list="d0,m0", **BLOCK, **GUIDANCE)),
    "PAG, SDXL": patched("PerturbedAttention", "sdxl", scale=3.0, adaptive_scale=0.1, unet_block_list="d1.0,u0.0-1", **BLOCK, **GUIDANCE),
    "SEG": patched("SmoothedEnergyGuidanceAdvanced", scale=3.0, blur_sigma=2.0, unet_block_list="", **BLOCK, **GUIDANCE),
    "SWG": patched("SlidingWindowGuidanceAdvanced", scale=3.0, tile_width=64, tile_height=64, tile_overlap=32, **WINDOW),
    "NAG": patched("NormalizedAttentionGuidance", negative=["negative", 0], scale=2.0, tau=2.5, alpha=0.5, unet_block_list="", **WINDOW),
    "PLADIS": patched("PLADIS", scale=2.0, sparse_func="entmax1.5", unet_block_list=""),
    "SMC": patched("SlidingModeControlCFG", **{"lambda": 6.0, "k": 0.1}),
    "FDG": patched("FrequencyDecoupledGuidance", strength_high=6.0),
    "MG": patched("MomentumGuidance", momentum=0.5, ema=0.6),
    "FDG and MG": sampling(
        {
            "fdg": node("FrequencyDecoupledGuidance", model=["model", 0], strength_high=6.0),
            "patched": node("MomentumGuidance", model=["fdg", 0], momentum=0.5, ema=0.6),
        }
    ),
}
HYPERTILE = {"tile_size": 32, "swap_size": 2, "max_depth": 1, "scale_depth": False, "seed": 3}
SETTINGS: dict[str, Any] = {
    "enable_emphasis": True,
    "RNG": "cpu",
    "disable_nan_check": True,
    "eta": 0.7,
    "s_churn": 0.5,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "ENSD": 3,
    "skip_early_cond": 0.0,
    "sgm_noise_multiplier": True,
    "upcast_sampling": True,
    "NGMS": 0.0,
    "NGMS all steps": False,
    "Prompt word wrap length limit": 20,
    "Use previous prompt editing timelines": False,
    "Use CFGDenoiser": False,
}


def adapted(family: str, weight_type: str, scaling: str) -> Prompt:
    """A latent sampled with an image adapter."""
    adapter = {
        "loader": node("IPAdapterModelLoader", ipadapter_file=f"small-{family}.safetensors"),
        "embeds": node("RandomEmbeds", seed=8, width=64),
        "negative_embeds": node("RandomEmbeds", seed=9, width=64),
        "patched": node(
            "IPAdapterEmbeds",
            model=["model", 0],
            ipadapter=["loader", 0],
            pos_embed=["embeds", 0],
            neg_embed=["negative_embeds", 0],
            weight=0.8,
            weight_type=weight_type,
            start_at=0.0,
            end_at=1.0,
            embeds_scaling=scaling,
        ),
    }
    return sampling(adapter, family)


FACED: Prompt = {
    "picture": node("RandomPictures", seed=4, width=128, height=128, count=1),
    "faces": node("StandInFaces"),
    "instantid": node("InstantIDModelLoader", instantid_file="small-sdxl.safetensors"),
    "controlnet": node("ControlNetLoader", control_net_name="small-sdxl.safetensors"),
}
ADAPTED = {"instantid": ["instantid", 0], "insightface": ["faces", 0], "image": ["picture", 0], "model": ["model", 0]}
CONDITIONED = {"positive": ["positive", 0], "negative": ["negative", 0]}


def faced(kind: str, **inputs: Any) -> Prompt:
    """A latent sampled with InstantID's node *kind* on SDXL, whose second and third outputs are the conditioning."""
    applied = node(kind, control_net=["controlnet", 0], **ADAPTED, **CONDITIONED, **inputs)
    return sampling({**FACED, "patched": applied}, "sdxl", positive=["patched", 1], negative=["patched", 2])


FACES: dict[str, Prompt] = {
    "a face": shown(faced("ApplyInstantID", weight=0.8)),
    "a masked face, part of the time": faced("ApplyInstantID", weight=0.6, start_at=0.2, end_at=0.8, mask=["picture", 1]),
    "advanced, noise": faced("ApplyInstantIDAdvanced", ip_weight=0.7, cn_strength=0.5, noise=0.3),
    "attention and ControlNet apart": sampling(
        {
            **FACED,
            "patched": node("InstantIDAttentionPatch", **ADAPTED, weight=0.9, noise=0.2),
            "points": node("FaceKeypointsPreprocessor", faceanalysis=["faces", 0], image=["picture", 0]),
            "controlled": node(
                "ApplyInstantIDControlNet",
                face_embeds=["patched", 1],
                control_net=["controlnet", 0],
                image_kps=["points", 0],
                **CONDITIONED,
                strength=0.6,
            ),
        },
        "sdxl",
        positive=["controlled", 0],
        negative=["controlled", 1],
    ),
}

CASES: dict[str, dict[str, Prompt]] = {
    "ComfyUI_InstantID": FACES,
    "PuLID_ComfyUI": {
        **{method: shown(patched("PulidAttention", "sdxl", method=method)) for method in ("fidelity", "style", "neutral")},
        "masked": sampling(
            {
                "picture": node("RandomPictures", seed=4, width=128, height=128, count=1),
                "patched": node("PulidAttention", model=["model", 0], method="style", mask=["picture", 1]),
            },
            "sdxl",
        ),
    },
    "": {
        "SD 1.5": sampling({}),
        "SDXL": sampling({}, "sdxl"),
        "SD 1.5, euler_ancestral": sampling({}, sampler="euler_ancestral"),
        "InstructPix2Pix": sampling(
            {
                "model": node("UNETLoader", unet_name="small-pix2pix.safetensors", weight_dtype="default"),
                "shown": node("RandomConditioning", seed=1, tokens=77, width=768, pooled=0, picture=True),
            },
            positive=["shown", 0],
        ),
        "SD 1.5, dpmpp_sde": sampling({}, sampler="dpmpp_sde"),
    },
    "sd-perturbed-attention": PERTURBED,
    "ComfyUI-GGUF": {
        "UNet": sampling({"model": node("UnetLoaderGGUF", unet_name="small-sd15.gguf")}),
        "UNet with a LoRA": sampling(
            {
                "model": node("UnetLoaderGGUF", unet_name="small-sd15.gguf"),
                "patched": node("LoraLoaderModelOnly", model=["model", 0], lora_name="small-sd15.safetensors", strength_model=1.0),
            }
        ),
        "UNet after a LoRA": sampling({"model": node("UnetLoaderGGUF", unet_name="small-sd15.gguf")}, seed=6),
    },
    "ComfyUI_smZNodes": {
        f"{kind}{sampler}": sampling(model, sampler=sampler)
        for kind, model in (("", {}), ("settings, ", {"patched": node("smZ Settings", **{"*": ["model", 0]}, **SETTINGS)}))
        for sampler in ("euler", "euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_alt")
    },
    "ComfyUI_IPAdapter_plus": {
        "SD 1.5": shown(adapted("sd15", "linear", "V only")),
        "SDXL": shown(adapted("sdxl", "linear", "V only")),
        "SDXL, style": adapted("sdxl", "style transfer", "K+V"),
        "SDXL, precise": adapted("sdxl", "style transfer precise", "K+mean(V) w/ C penalty"),
    },
    "ComfyUI-Inspire-Pack": {
        "HyperTile": patched("HyperTile //Inspire", **HYPERTILE),
        "HyperTile, SDXL": patched("HyperTile //Inspire", "sdxl", **HYPERTILE),
    },
}
