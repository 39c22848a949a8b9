"""Packs that encode texts, load models and LoRAs, and stack them."""

from picture_prompts import node

from pack_cases.case_graphs import CHECKPOINT, CONTROLNET, LORA, TEXT, Prompt, at, drawn, keep, sample, whole
from pack_cases.sampling_packs import LINKS, STEPS, own_sampler, patched, with_lora

TENSE = "a [red::0.4] house, (old:1.3) boat"


def encoded(kind: str, text: str = TEXT, **inputs) -> Prompt:
    """A latent sampled with the text that the node *kind* has encoded."""
    return keep(
        {
            **whole(),
            "encoded": node(kind, clip=at("checkpoint", 1), text=text, **inputs),
            "sampled": sample(at("checkpoint"), at("encoded")),
        },
        at("sampled"),
    )


def prompt_lora(loader: str) -> Prompt:
    """prompt-control: a LoRA named in the text."""
    text = "a (red:1.2) house <lora:small-whole:0.7>"
    graph = {
        **whole(),
        "loaded": node(loader, text=text, model=at("checkpoint"), clip=at("checkpoint", 1)),
        "encoded": node("PCLazyTextEncode", clip=at("loaded", 1), text=text),
        "sampled": sample(at("loaded"), at("encoded")),
    }
    return keep(graph, at("sampled"))


def efficient(script: str | None = None, **settings) -> Prompt:
    """efficiency-nodes: its loader and sampler, with a script node of the kind *script*."""
    more = {"script": at("script")} if script else {}
    graph = {
        **whole(),
        "stack": node("LoRA Stacker", input_mode="simple", lora_count=1, lora_name_1=LORA, lora_wt_1=0.6),
        "control": node("Control Net Stacker", control_net=at("controlnet"), image=at("picture"), strength=0.6),
        "loader": node(
            "Efficient Loader",
            ckpt_name=CHECKPOINT,
            clip_skip=-2,
            positive=TEXT,
            negative="grey",
            weight_interpretation="A1111",
            empty_latent_width=64,
            empty_latent_height=64,
            lora_stack=at("stack"),
            cnet_stack=at("control"),
        ),
        **({"script": node(script, **settings)} if script else {}),
        "sampled": node(
            "KSampler (Efficient)",
            model=at("loader"),
            positive=at("loader", 1),
            negative=at("loader", 2),
            latent_image=at("loader", 3),
            optional_vae=at("loader", 4),
            **STEPS,
            seed=5,
            preview_method="none",
            vae_decode="true",
            **more,
        ),
    }
    return keep(graph, at("sampled", 3), at("sampled", 5))


def easy(weights: str) -> Prompt:
    """Easy-Use: its full loader and sampler."""
    graph = {
        "loader": node(
            "easy fullLoader",
            ckpt_name=CHECKPOINT,
            lora_name=LORA,
            resolution="width x height (custom)",
            empty_latent_width=64,
            empty_latent_height=64,
            positive=TEXT,
            negative="grey",
            positive_weight_interpretation=weights,
            negative_weight_interpretation="comfy",
        ),
        "sampled": node("easy fullkSampler", pipe=at("loader"), **STEPS, image_output="Hide", seed=5),
    }
    return keep(graph, at("sampled", 5), at("sampled", 1))


def easy_pipe() -> Prompt:
    """Easy-Use: loader, settings and sampler as a pipe of nodes."""
    graph = {
        "loader": node(
            "easy a1111Loader",
            ckpt_name=CHECKPOINT,
            resolution="width x height (custom)",
            empty_latent_width=64,
            empty_latent_height=64,
            positive=TEXT,
            negative="grey",
            a1111_prompt_style=False,
        ),
        "set": node("easy preSampling", pipe=at("loader"), **STEPS, seed=5),
        "sampled": node("easy kSampler", pipe=at("set"), image_output="Hide"),
    }
    return keep(graph, at("sampled", 1))


CASES: dict[str, dict[str, Prompt]] = {
    "ComfyUI_ADV_CLIP_emb": {
        weights: encoded("BNK_CLIPTextEncodeAdvanced", token_normalization=norm, weight_interpretation=weights)
        for weights, norm in (
            ("comfy", "none"),
            ("A1111", "mean"),
            ("compel", "length"),
            ("comfy++", "length+mean"),
            ("down_weight", "none"),
        )
    },
    "comfyui-prompt-control": {
        "text": encoded("PCTextEncode", "a (red:1.3) house BREAK a boat STYLE(A1111) by the (old:0.8) sea"),
        "schedule": encoded("PCLazyTextEncode", TENSE),
        "combined, masked": encoded("PCTextEncode", "a house AND a boat :0.6 MASK(0 0.5, 0 1)"),
        "couple": encoded("PCTextEncode", "a house COUPLE MASK(0 0.5, 0 1) a boat"),
        "LoRA": prompt_lora("PCLazyLoraLoader"),
        "LoRA by hooks": keep(
            {
                **whole(),
                "hooks": node("PCLoraHooksFromText", text="<lora:small-whole:0.7>"),
                "hooked": node("SetClipHooks", clip=at("checkpoint", 1), hooks=at("hooks"), apply_to_conds=True, schedule_clip=False),
                "encoded": node("CLIPTextEncode", clip=at("hooked"), text=TEXT),
                "sampled": sample(at("checkpoint"), at("encoded")),
            },
            at("sampled"),
        ),
    },
    "ComfyUI_smZNodes": {
        **{
            parser: encoded("smZ CLIPTextEncode", text, parser=parser, smZ_steps=3)
            for parser, text in (
                ("A1111", "a (red:1.3) house by the [old] sea"),
                ("comfy", "a (red:1.3) house"),
                ("comfy++", "a (red:1.3) house"),
                ("compel", "a (red)1.3 house"),
                ("full", "a (red:1.3) house"),
                ("fixed attention", "a (red:1.3) house"),
            )
        },
        "AND": encoded("smZ CLIPTextEncode", "a house AND a boat", parser="A1111", smZ_steps=3),
        "weighted AND": encoded("smZ CLIPTextEncode", "a house :1.2 AND a boat :0.6", parser="A1111", smZ_steps=3),
    },
    "rgthree-comfy": {
        "LoRA stack": with_lora("Lora Loader Stack (rgthree)", lora_01=LORA, strength_01=0.6, lora_02="small-sd15.safetensors"),
        "Power LoRA": with_lora(
            "Power Lora Loader (rgthree)",
            lora_1={"on": True, "lora": LORA, "strength": 0.7, "strengthTwo": 0.3},
            lora_2={"on": False, "lora": "small-sd15.safetensors", "strength": 1.0},
        ),
        "Power Prompt": keep(
            {
                **whole(),
                "prompt": node(
                    "Power Prompt (rgthree)",
                    prompt="a red house <lora:small-whole:0.6>",
                    opt_model=at("checkpoint"),
                    opt_clip=at("checkpoint", 1),
                ),
                "sampled": sample(at("prompt", 1), at("prompt")),
            },
            at("sampled"),
            at("prompt", 3),
        ),
        "pictures": keep(
            {
                **drawn(),
                "resized": node("Image Resize (rgthree)", image=at("picture"), measurement="pixels", width=96, height=80, fit="pad"),
            },
            at("resized"),
            at("resized", 1),
        ),
    },
    "ComfyUI-Custom-Scripts": {
        "loaders": keep(
            {
                **whole(),
                "checkpoint": node("CheckpointLoader|pysssss", ckpt_name=CHECKPOINT),
                "lora": node("LoraLoader|pysssss", model=at("checkpoint"), clip=at("checkpoint", 1), lora_name=LORA, strength_model=0.7),
                "positive": node("CLIPTextEncode", text=TEXT, clip=at("lora", 1)),
                "sampled": sample(at("lora")),
            },
            at("sampled"),
        ),
        "expression": keep(
            {**drawn(), "made": node("MathExpression|pysssss", expression="max(3, a.width) * 2 + 0.5", a=at("picture"))},
            at("made"),
            at("made", 1),
        ),
    },
    "ComfyUI_Comfyroll_CustomNodes": {
        "LoRA": with_lora("CR Load LoRA", switch="On", lora_name=LORA, strength_model=0.6),
        "LoRA stack": keep(
            {
                **whole(),
                "stack": node("CR LoRA Stack", switch_1="On", lora_name_1=LORA, model_weight_1=0.5, clip_weight_1=0.8),
                "lora": node("CR Apply LoRA Stack", model=at("checkpoint"), clip=at("checkpoint", 1), lora_stack=at("stack")),
                "positive": node("CLIPTextEncode", text=TEXT, clip=at("lora", 1)),
                "sampled": sample(at("lora")),
            },
            at("sampled"),
        ),
        "ControlNet": keep(
            {
                **whole(),
                "applied": node(
                    "CR Apply ControlNet", conditioning=at("positive"), control_net=at("controlnet"), image=at("picture"), strength=0.7
                ),
                "sampled": sample(at("checkpoint"), at("applied")),
            },
            at("sampled"),
        ),
        "ControlNet stack": keep(
            {
                **whole(),
                "stack": node(
                    "CR Multi-ControlNet Stack",
                    switch_1="On",
                    controlnet_1=CONTROLNET,
                    controlnet_strength_1=0.7,
                    end_percent_1=0.6,
                    image_1=at("picture"),
                ),
                "applied": node(
                    "CR Apply Multi-ControlNet",
                    base_positive=at("positive"),
                    base_negative=at("negative"),
                    switch="On",
                    controlnet_stack=at("stack"),
                ),
                "sampled": sample(at("checkpoint"), at("applied"), at("applied", 1)),
            },
            at("sampled"),
        ),
    },
    "efficiency-nodes-comfyui": {
        "loader and sampler": efficient(),
        "second pass": efficient("HighRes-Fix Script", upscale_type="latent", hires_steps=2, pixel_upscaler="", use_controlnet=False),
        "noise": efficient("Noise Control Script", rng_source="nv", cfg_denoiser=True, add_seed_noise=True, seed=3, weight=0.1),
    },
    "ComfyUI-Easy-Use": {"loader and sampler": easy("comfy"), "A1111 weights": easy("A1111"), "pipe": easy_pipe()},
    "was-node-suite-comfyui": {
        "KSampler": keep(
            {
                **drawn(),
                "seed": node("Seed", seed=5),
                "sampled": node("KSampler (WAS)", **LINKS, **STEPS, seed=at("seed")),
                "blended": node("Blend Latents", latent_a=at("sampled"), latent_b=at("latent"), operation="add"),
            },
            at("sampled"),
            at("blended"),
        ),
        "LoRA": with_lora("Lora Loader", lora_name=LORA),
        "cycle": keep(
            {
                **whole(),
                "sampled": node(
                    "KSampler Cycle",
                    **{**LINKS, "model": at("checkpoint")},
                    **STEPS,
                    seed=5,
                    vae=at("checkpoint", 2),
                    latent_upscale="bilinear",
                    upscale_factor=1.5,
                ),
            },
            at("sampled"),
        ),
        "text": keep(
            {
                **whole(),
                "encoded": node(
                    "CLIPTextEncode (NSP)", mode="Wildcards", noodle_key="__", seed=3, text="a red house", clip=at("checkpoint", 1)
                ),
                "sampled": sample(at("checkpoint"), at("encoded")),
            },
            at("sampled"),
            at("encoded", 1),
        ),
    },
    "cg-use-everywhere": {"text": keep({"text": node("Simple String", string="a house")}, at("text"))},
    "ComfyUI_essentials": {
        "variations": own_sampler("KSamplerVariationsWithNoise+", main_seed=5, variation_seed=9, variation_strength=0.2),
        "stochastic variations": own_sampler("KSamplerVariationsStochastic+", noise_seed=5, sampler="euler", variation_seed=9),
        "guidance by timestep": patched("GuidanceTimestepping+"),
        "SD3 sampling": patched("ModelSamplingSD3Advanced+"),
        "injected noise": keep(
            {
                **drawn(),
                "injected": node("InjectLatentNoise+", latent=at("sampled"), noise_seed=3, mask=at("picture", 1)),
                "sampled": sample(at("model")),
                "again": sample(at("model"), latent=at("injected"), denoise=0.6),
            },
            at("again"),
        ),
        "pictures": keep(
            {
                **drawn(),
                "resized": node("ImageResize+", image=at("picture"), width=96, height=80, interpolation="bicubic", method="pad"),
                "sharp": node("ImageCASharpening+", image=at("resized")),
                "other": node("RandomPictures", seed=9, width=96, height=80, count=1),
                "matched": node("ImageColorMatch+", image=at("sharp"), reference=at("other")),
                "mask": node("MaskBlur+", mask=at("picture", 1)),
                "sum": node("SimpleMath+", value="a * 2 + 1", a=at("resized", 1)),
            },
            at("sharp"),
            at("matched"),
            at("mask"),
            at("sum"),
        ),
        "sampler names": keep({"chosen": node("SamplerSelectHelper+", euler=True, dpmpp_2m=True)}, at("chosen")),
    },
    "comfyui-tooling-nodes": {
        "regions": keep(
            {
                **drawn(size=128),
                "background": node("ETN_BackgroundRegion", conditioning=at("positive")),
                "region": node("ETN_DefineRegion", mask=at("picture", 1), conditioning=at("other"), regions=at("background")),
                "other": node("RandomConditioning", seed=7, tokens=77, width=768, pooled=0),
                "attention": node("ETN_AttentionMask", model=at("model"), regions=at("region")),
                "sampled": sample(at("attention")),
            },
            at("sampled"),
        ),
        "tiles": keep(
            {
                **drawn(),
                "layout": node("ETN_TileLayout", image=at("picture"), min_tile_size=64, padding=16, blending=8),
                "tile": node("ETN_ExtractImageTile", image=at("picture"), layout=at("layout"), index=1),
                "other": node("ETN_ExtractImageTile", image=at("picture"), layout=at("layout"), index=0),
                "merged": node("ETN_MergeImageTile", image=at("picture"), layout=at("layout"), index=0, tile=at("other")),
            },
            at("tile"),
            at("merged"),
        ),
    },
    "ComfyUI-Crystools": {
        "numbers": keep({**drawn(), "size": node("Get resolution [Crystools]", image=at("picture"))}, at("size"), at("size", 1))
    },
}
