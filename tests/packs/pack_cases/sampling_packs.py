"""Packs that sample, or change how a model is sampled."""

from picture_prompts import node

from pack_cases.case_graphs import CONTROLNET, LORA, SAMPLED, Prompt, at, drawn, keep, sample, whole

STEPS = {key: SAMPLED[key] for key in ("steps", "cfg", "sampler_name", "scheduler")}
CONDS = {"positive": at("positive"), "negative": at("negative")}
LINKS = {"model": at("model"), **CONDS, "latent_image": at("latent")}


def patched(kind: str, **inputs) -> Prompt:
    """A latent sampled with the node *kind* on the small model."""
    return keep({**drawn(), "patched": node(kind, model=at("model"), **inputs), "sampled": sample(at("patched"))}, at("sampled"))


def own_sampler(kind: str, output: int = 0, **inputs) -> Prompt:
    """The latent that the sampler *kind* of a pack gives on the small model."""
    return keep({**drawn(), "sampled": node(kind, **{**LINKS, **STEPS, "seed": 5, **inputs})}, at("sampled", output))


def tiles(strategy: str) -> Prompt:
    """Sampling 320 × 320 pixels in tiles of 256."""
    inputs = {**LINKS, **STEPS, "steps": 1, "seed": 5, "tile_width": 256, "tile_height": 256, "tiling_strategy": strategy}
    return keep({**drawn(size=320), "sampled": node("BNK_TiledKSampler", **inputs)}, at("sampled"))


def tiled_control() -> Prompt:
    """Sampling in tiles with a ControlNet."""
    graph = {
        **drawn(size=320),
        "controlnet": node("ControlNetLoader", control_net_name=CONTROLNET),
        "controlled": node("ControlNetApply", conditioning=at("positive"), control_net=at("controlnet"), image=at("picture"), strength=0.7),
        "sampled": node(
            "BNK_TiledKSampler",
            **{**LINKS, "positive": at("controlled")},
            **{**STEPS, "steps": 1},
            seed=5,
            tile_width=256,
            tile_height=256,
            tiling_strategy="random",
        ),
    }
    return keep(graph, at("sampled"))


def diffused(method: str, control: bool = False) -> Prompt:
    """Sampling 128 × 128 pixels with TiledDiffusion in tiles of 64."""
    tiled = {"method": method, "tile_width": 64, "tile_height": 64, "tile_overlap": 32, "tile_batch_size": 2}
    graph = {
        **drawn(size=128),
        "parameters": node("SpotDiffusionParams_TiledDiffusion", model=at("model"), seed=3),
        "tiled": node("TiledDiffusion", model=at("parameters" if method == "SpotDiffusion" else "model"), **tiled),
        "controlnet": node("ControlNetLoader", control_net_name=CONTROLNET),
        "controlled": node("ControlNetApply", conditioning=at("positive"), control_net=at("controlnet"), image=at("picture"), strength=0.7),
        "sampled": sample(at("tiled"), at("controlled") if control else None),
    }
    return keep(graph, at("sampled"))


def tiled_vae() -> Prompt:
    """A wide picture coded in tiles. ComfyUI 0.33 has no attribute that the pack's decoding reads."""
    graph = {
        **whole(),
        "wide": node("RandomPictures", seed=4, width=352, height=64, count=1),
        "coded": node("VAEEncodeTiled_TiledDiffusion", pixels=at("wide"), vae=at("checkpoint", 2), tile_size=256, fast=False),
    }
    return keep(graph, at("coded"))


def advanced_control(**apply) -> Prompt:
    """Advanced-ControlNet's loader and node around the sampler; *apply* changes the node."""
    graph = {
        **drawn(),
        "net": node("ACN_ControlNetLoaderAdvanced", cnet=CONTROLNET),
        "weights": node("ACN_ScaledSoftControlNetWeights", base_multiplier=0.8),
        "soft": node("ACN_SoftControlNetWeightsSD15"),
        "latent_kf": node("LatentKeyframe", batch_index=0, strength=0.6),
        "keyframe": node("TimestepKeyframe", start_percent=0.3, strength=0.5),
        "reference": node("ACN_ReferenceControlNet", reference_type="reference_attn+adain", style_fidelity=0.5, ref_weight=1.0),
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name="small-sd15.safetensors"),
        "shown": node("ACN_ReferencePreprocessor", image=at("picture"), vae=at("checkpoint", 2), latent_size=at("latent")),
        "applied": node(
            "ACN_AdvancedControlNetApply_v2", **{**CONDS, "control_net": at("net"), "image": at("picture"), "strength": 0.8, **apply}
        ),
        "sampled": sample(at("model"), at("applied"), at("applied", 1)),
    }
    return keep(graph, at("sampled"))


def animated(settings: dict | None = None, context: bool = False) -> Prompt:
    """Evolved sampling of three frames, without a motion model."""
    options = {"context_options": at("context")} if context else {}
    graph = {
        **drawn(),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=6 if context else 3),
        "context": node("ADE_StandardStaticContextOptions", context_length=4, context_overlap=2),
        "layer": node("ADE_NoiseLayerAdd", noise_type="constant", noise_weight=0.4),
        "cfg": node("ADE_CustomCFGSimple", cfg=2.5),
        "free": node("ADE_IterationOptsFreeInit"),
        "settings": node("ADE_AnimateDiffSamplingSettings", **(settings or {})),
        "evolved": node("ADE_UseEvolvedSampling", model=at("model"), sample_settings=at("settings"), **options),
        "sampled": sample(at("evolved")),
    }
    return keep(graph, at("sampled"))


def custom(guider: str, **inputs) -> Prompt:
    """Custom sampling with the guider *guider* of Inspire, which passes the noise levels on."""
    graph = {
        **drawn(),
        "noise": node("RandomNoise", noise_seed=5),
        "chosen": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=at("model"), scheduler="normal", steps=3, denoise=1.0),
        "guider": node(guider, model=at("model"), **CONDS, sigmas=at("sigmas"), **inputs),
        "sampled": node(
            "SamplerCustomAdvanced",
            noise=at("noise"),
            guider=at("guider"),
            sampler=at("chosen"),
            sigmas=at("guider", 1),
            latent_image=at("latent"),
        ),
    }
    return keep(graph, at("sampled"))


def clown(sampler: str, **more) -> Prompt:
    """RES4LYF's sampler of the name *sampler*."""
    given = {"sampler_name": sampler, "scheduler": "beta57", "steps": 3, "cfg": 4.0, "seed": 5, **more}
    return keep({**drawn(), "sampled": node("ClownsharKSampler_Beta", **LINKS, **given)}, at("sampled"), at("sampled", 1))


def with_lora(kind: str, **inputs) -> Prompt:
    """A text encoded and a latent sampled after the node *kind* has put a LoRA on both models."""
    graph = {
        **whole(),
        "lora": node(kind, model=at("checkpoint"), clip=at("checkpoint", 1), **inputs),
        "positive": node("CLIPTextEncode", text="a house by the sea", clip=at("lora", 1)),
        "sampled": sample(at("lora")),
    }
    return keep(graph, at("sampled"))


INJECTED = keep(
    {
        **drawn(),
        "sampled": sample(at("model")),
        "noise": node("BNK_NoisyLatentImage", source="CPU", seed=3, width=128, height=128, batch_size=1),
        "other": node("BNK_NoisyLatentImage", source="CPU", seed=4, width=128, height=128, batch_size=1),
        "mixed": node("BNK_SlerpLatent", latents1=at("noise"), factor=0.3, latents2=at("other")),
        "sigma": node("BNK_GetSigma", model=at("model"), sampler_name="euler", scheduler="normal", steps=4, start_at_step=1, end_at_step=3),
        "injected": node("BNK_InjectNoise", latents=at("sampled"), strength=0.7, noise=at("mixed"), mask=at("picture", 1)),
    },
    at("injected"),
    at("sigma"),
)
REGIONS = {
    **whole(),
    "pipe": node("ToBasicPipe", model=at("checkpoint"), clip=at("checkpoint", 1), vae=at("checkpoint", 2), **CONDS),
    "base": node("KSamplerAdvancedProvider", basic_pipe=at("pipe"), cfg=4.0, sampler_name="euler", scheduler="normal"),
}

CASES: dict[str, dict[str, Prompt]] = {
    "ComfyUI_Noise": {
        "noise, slerp, sigma, injection": INJECTED,
        "unsampler": keep(
            {
                **drawn(),
                "sampled": sample(at("model")),
                "noisy": node("BNK_Unsampler", **{**LINKS, "latent_image": at("sampled")}, **STEPS, end_at_step=0, normalize="enable"),
            },
            at("noisy"),
        ),
    },
    "ComfyUI_TiledKSampler": {
        **{name: tiles(name) for name in ("random", "random strict", "padded", "simple")},
        "with a ControlNet": tiled_control(),
    },
    "Skimmed_CFG": {
        kind: patched(kind)
        for kind in (
            "Skimmed CFG",
            "Skimmed CFG - replace",
            "Skimmed CFG - linear interpolation",
            "Skimmed CFG - linear interpolation dual scales",
            "Skimmed CFG - Difference CFG",
            "Skimmed CFG - Timed flip",
            "Skimmed CFG - Clean Skim",
        )
    },
    "ComfyUI-TiledDiffusion": {
        **{method: diffused(method) for method in ("MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion")},
        "with a ControlNet": diffused("MultiDiffusion", True),
        "VAE encoding": tiled_vae(),
    },
    "ComfyUI-Advanced-ControlNet": {
        "plain": advanced_control(),
        "mask, soft weights": advanced_control(mask_optional=at("picture", 1), weights_override=at("soft")),
        "scaled weights, keyframes": advanced_control(
            weights_override=at("weights"), timestep_kf=at("keyframe", 0), latent_kf_override=at("latent_kf")
        ),
        "reference": advanced_control(control_net=at("reference"), image=at("shown")),
    },
    "ComfyUI-AnimateDiff-Evolved": {
        "context windows": animated(context=True),
        "noise layers": animated({"noise_layers": at("layer"), "noise_type": "FreeNoise"}),
        "own CFG": animated({"custom_cfg": at("cfg")}),
        "FreeInit": animated({"iteration_opts": at("free")}),
    },
    "ComfyUI-Inspire-Pack": {
        "KSampler": own_sampler("KSampler //Inspire", noise_mode="CPU", variation_seed=7, variation_strength=0.3),
        "KSampler, GPU noise": own_sampler("KSampler //Inspire", noise_mode="GPU(=A1111)", batch_seed_mode="comfy"),
        "sampling with progress": own_sampler("KSamplerProgress //Inspire", noise_mode="CPU", output=1),
        "LoRA by blocks": with_lora(
            "LoraLoaderBlockWeight //Inspire", lora_name=LORA, block_vector="1,0,0.5,R,1,1,0,0,1,1,1,0.3,1,1,1,1,1"
        ),
        "scheduled CFG": custom("ScheduledCFGGuider //Inspire"),
        "scheduled perpendicular negative": custom("ScheduledPerpNegCFGGuider //Inspire", empty_conditioning=at("negative")),
        "regional CFG": patched("RegionalCFG //Inspire", mask=at("picture", 1)),
        "regional prompt": keep(
            {
                **REGIONS,
                "region": node(
                    "RegionalPromptSimple //Inspire",
                    basic_pipe=at("pipe"),
                    mask=at("picture", 1),
                    cfg=4.0,
                    sampler_name="euler",
                    scheduler="normal",
                    wildcard_prompt="a boat",
                ),
                "sampled": node(
                    "RegionalSampler", seed=5, steps=4, samples=at("latent"), base_sampler=at("base"), regional_prompts=at("region")
                ),
            },
            at("sampled"),
        ),
        "regional conditioning": keep(
            {
                **whole(),
                "region": node("RegionalConditioningSimple //Inspire", clip=at("checkpoint", 1), mask=at("picture", 1), prompt="a boat"),
                "both": node("ConditioningCombine", conditioning_1=at("positive"), conditioning_2=at("region")),
                "sampled": sample(at("checkpoint"), at("both")),
            },
            at("sampled"),
        ),
    },
    "RES4LYF": {
        **{name: clown(name) for name in ("multistep/res_2m", "exponential/res_2s", "exponential/res_3s", "multistep/deis_2m")},
        "implicit": clown("fully_implicit/gauss-legendre_2s"),
        "without noise": clown("multistep/dpmpp_2m", eta=0.0, bongmath=False),
        "as a KSampler": own_sampler("KSampler", sampler_name="res_2m", scheduler="beta57"),
        "unsampling": clown("multistep/res_2m", sampler_mode="unsample", eta=0.0),
    },
}
