"""Small models of image families, their text encoders and autoencoders give upstream's results.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_image_families_against_upstream.py
"""

import dataclasses
import sys

import pytest
import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path.insert(0, str(PROJECT / "tests-unit" / "comfy_test"))

from image_family_files import (  # noqa: E402
    FLUX2_VAE,
    chroma_config,
    chroma_tensors,
    cosmos_config,
    cosmos_tensors,
    flux2_config,
    flux2_tensors,
    flux_relative_config,
    hidream_config,
    hidream_tensors,
    llama_tensors,
    numbers,
    sd3_config,
    sd3_tensors,
    sd35_control_tensors,
    vae_tensors,
)
from transformer_files import (  # noqa: E402
    qwen_control_tensors,
    qwen_fun_tensors,
    qwen_image_config,
    qwen_image_tensors,
    qwen_text_tensors,
    random_tensors,
)

BOUND = 1e-3

pytestmark = against_upstream(1200)


def sampled(family, config, tensors, *, width, shape=(1, 16, 7, 6), values=None, **more):
    """A case of ``sampled``: two texts of *width*, and *values* of both conditionings."""
    return {
        "run": "sampled",
        "family": family,
        "unet_config": config,
        "tensors": tensors,
        "positive": [(numbers(1, 7, width, seed=1), values or {})],
        "negative": [(numbers(1, 4, width, seed=2), values or {})],
        "latent": torch.zeros(shape),
        "noise": numbers(*shape, seed=3),
        **more,
    }


def lora(*layers):
    """Rank 4 for each (name of the layer, in, out), as diffusers writes it."""
    tensors = {}
    for number, (name, inner, outer) in enumerate(layers):
        tensors[f"{name}.lora_A.weight"] = numbers(4, inner, seed=90 + number) * inner**-0.5
        tensors[f"{name}.lora_B.weight"] = numbers(outer, 4, seed=95 + number) * 0.5
    return tensors


def encoded(module, name, part, tensors, layers, *, inner=96, arguments=None):
    """A case of ``encoded``: a text model of two heads with one key."""
    vocabulary, width = tensors["model.embed_tokens.weight"].shape
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    ids = [int(value) for value in torch.randint(5, 390, (12,), generator=torch.Generator().manual_seed(5))]
    case = {"run": "encoded", "module": module, "name": name, "part": part, "sizes": sizes, "eyes": {}, "tensors": tensors}
    return {**case, "tokens": [ids, ids[:5]], "arguments": arguments}


def flux2_cases():
    plain = {"width": 96, "shape": (1, 128, 3, 5)}
    references = {"reference_latents": [numbers(1, 128, 4, 2, seed=4), numbers(1, 128, 2, 2, seed=5)]}
    layers = (("transformer.transformer_blocks.1.attn.to_q", 256, 256), ("transformer.single_transformer_blocks.0.attn.to_out", 1024, 256))
    made = flux2_config(), flux2_tensors()
    small = flux2_config(guidance=False), flux2_tensors(guidance=False)
    mistral = {"layers": 40, "inner": 48}
    qwen = qwen_text_tensors(eyes=False, normalised=True, width=32, layers=28)
    vae = dataclasses.replace(FLUX2_VAE, channels=(128, 256, 512, 512), num_res_blocks=2, decoder_channels=(64, 128, 256, 256))
    latents = [numbers(1, 128, 4, 6, seed=2)]
    pictures = [torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(1))]
    return {
        "Flux.2": sampled("Flux2", *made, **plain, values={"guidance": 2.5}),
        "Flux.2, references": sampled("Flux2", *made, **plain, values=references),
        "Flux.2, LoRA": sampled("Flux2", *made, **plain, values={"guidance": 2.5}, lora=lora(*layers)),
        "Flux.2 klein": sampled("Flux2", *small, **plain),
        "Mistral": encoded("flux", "Flux2TEModel", "mistral3_24b", llama_tensors(**mistral), 40, inner=48),
        "Qwen 3 of Flux.2": encoded("flux", "klein_te", "qwen3_4b", qwen, 28, arguments={"model_type": "qwen3_4b"}),
        "Flux.2's autoencoder": {"run": "autoencoded", "tensors": vae_tensors(vae), "pictures": pictures, "latents": latents},
    }


def sd3_cases():
    plain = {"width": 48, "values": {"pooled_output": numbers(1, 32, seed=6)}, "shape": (2, 16, 7, 6)}
    layers = ("transformer.transformer_blocks.1.attn.to_k", 128, 128), ("transformer.transformer_blocks.1.norm1_context.linear", 128, 256)

    def case(lora_tensors=None, **sizes):
        return sampled("SD3", sd3_config(**sizes), sd3_tensors(**sizes), **plain, lora=lora_tensors, ours_alone=("image_model",))

    def steered(kind, double):
        sizes = {"pooled": 2048, "normalised": True}
        hint = torch.rand(1, 3, 56, 48, generator=torch.Generator().manual_seed(kind))
        more = {
            **plain,
            "values": {"pooled_output": numbers(1, 2048, seed=6)},
            "control": (sd35_control_tensors(kind, double=double), hint),
        }
        return sampled("SD3", sd3_config(**sizes), sd3_tensors(**sizes), **more, ours_alone=("image_model",))

    medium = {"twice": (0,), "normalised": True}
    return {
        "Stable Diffusion 3.5, edges": steered(1, double=True),
        "Stable Diffusion 3.5, depth": steered(2, double=False),
        "Stable Diffusion 3": case(),
        "Stable Diffusion 3, LoRA": case(lora(*layers)),
        "Stable Diffusion 3.5 medium": case(**medium),
        "Stable Diffusion 3, computed positions": case(side=None),
    }


def cosmos_cases():
    plain = {"width": 32, "shape": (1, 16, 1, 7, 6)}
    of_anima = {"t5xxl_ids": torch.tensor([5, 9, 1], dtype=torch.int), "t5xxl_weights": torch.tensor([1.0, 0.6, 1.0])}
    anima = {"adapter": 32, "vocabulary": 32128}
    layers = ("diffusion_model.blocks.1.mlp.layer2", 1024, 256), ("diffusion_model.blocks.0.cross_attn.k_proj", 32, 256)
    mask = torch.ones(1, 1, 2, 4, 6)
    mask[:, :, 0] = 0

    def case(**more):
        config, tensors = cosmos_config(**anima), cosmos_tensors(**anima)
        return sampled("Anima", config, tensors, **{**plain, "values": of_anima, "ours_alone": ("llm_adapter_config",), **more})

    qwen = qwen_text_tensors(eyes=False, normalised=True, width=64, layers=3)
    encoder = encoded("anima", "AnimaTEModel", "qwen3_06b", qwen, 3) | {"beside": {"t5xxl": [[(5, 1.0), (1, 1.0)]]}}
    video = {"width": 32, "shape": (1, 16, 2, 4, 6), "values": {"denoise_mask": mask, "frame_rate": 16}}
    return {
        "Anima": case(),
        "Anima, LoRA": case(lora=lora(*layers)),
        "Anima's Qwen 3": encoder,
        "Cosmos-Predict2": sampled("CosmosT2IPredict2", cosmos_config(), cosmos_tensors(), **plain),
        "Cosmos-Predict2, video": sampled("CosmosI2VPredict2", cosmos_config(channels=17), cosmos_tensors(channels=17), **video),
    }


def flux_relative_cases():
    layers = ("transformer.transformer_blocks.1.attn.to_q", 256, 256), ("transformer.single_transformer_blocks.0.proj_mlp", 256, 1024)
    plain = {"width": 48, "shape": (2, 16, 7, 6)}
    made = chroma_config(), chroma_tensors()
    longcat, yak = flux_relative_config("longcat"), flux_relative_config("ovis")
    qwen = qwen_text_tensors(eyes=False, width=64)
    mark = encoded("longcat_image", "LongCatImageTEModel", "qwen25_7b", qwen, 3)
    twin = encoded("ovis", "OvisTEModel", "qwen3_2b", qwen_text_tensors(eyes=False, normalised=True, width=64), 3)
    seen = {"guidance": 2.0, "reference_latents": [numbers(1, 16, 4, 4, seed=4)], "reference_latents_method": "index"}
    return {
        "Chroma": sampled("Chroma", *made, **plain),
        "Chroma, LoRA": sampled("Chroma", *made, **plain, lora=lora(*layers)),
        "LongCat-Image": sampled("LongCatImage", longcat, random_tensors(longcat), width=3584, values=seen),
        "Ovis-Image": sampled("FluxSchnell", yak, random_tensors(yak), width=48),
        "Qwen2.5-VL of LongCat-Image": mark,
        "Qwen 3 of Ovis-Image": twin,
    }


def hidream_cases():
    values = {"pooled_output": numbers(1, 48, seed=6), "conditioning_llama3": numbers(1, 4, 6, 32, seed=7)}
    plain = {"width": 32, "values": values, "shape": (2, 16, 6, 8)}
    made = hidream_config(), hidream_tensors()
    name = "transformer.double_stream_blocks.1.block.attn1.to_q_t"
    llama = llama_tensors(layers=4, width=64)
    encoder = encoded("hidream", "hidream_clip", "llama", llama, 4, inner=48, arguments={"clip_l": False, "clip_g": False, "t5": False})
    seen = {**plain, "values": {**values, "concat_latent_image": numbers(1, 16, 6, 8, seed=8)}}
    return {
        "HiDream": sampled("HiDream", *made, **plain),
        "HiDream, LoRA": sampled("HiDream", *made, **plain, lora=lora((name, 128, 128))),
        "HiDream-E1": sampled("HiDream", *made, **seen),
        "Llama of HiDream": encoder | {"beside": {"l": [], "g": [], "t5xxl": []}, "extra": "conditioning_llama3"},
    }


def qwen_control_cases():
    """InstantX's ControlNets, for filling in too, and Alibaba's, with a model of so many blocks that two get residuals."""
    hint = torch.rand(1, 3, 56, 48, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 56, 48)
    mask[:, 12:40, 8:] = 1.0

    def case(control=None, depth=3):
        sizes = {"depth": depth}
        plain = {"width": 48, "shape": (1, 16, 1, 7, 6), "control": control}
        return sampled("QwenImage", qwen_image_config(**sizes), qwen_image_tensors(**sizes), **plain)

    unread = ("attention_head_dim", "num_attention_heads", "joint_attention_dim", "axes_dims_rope")
    sizes = {name: qwen_image_config()[name] for name in unread}
    return {
        "Qwen-Image": case(),
        "Qwen-Image, InstantX": case((qwen_control_tensors(), hint, sizes)),
        "Qwen-Image, InstantX, filling in": case((qwen_control_tensors(mask=True), hint, sizes, mask)),
        "Qwen-Image, InstantX, nothing to fill in": case((qwen_control_tensors(mask=True), hint, sizes)),
        "Qwen-Image of 13 blocks": case(depth=13),
        "Qwen-Image of 13 blocks, Fun": case((qwen_fun_tensors(), hint, sizes), depth=13),
    }


FAMILIES = (qwen_control_cases, flux2_cases, sd3_cases, cosmos_cases, flux_relative_cases, hidream_cases)


@pytest.mark.parametrize("cases", FAMILIES, ids=lambda cases: cases.__name__.removesuffix("_cases"))
def test_every_case_gives_upstreams_result(tmp_path, cases):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours.keys() == theirs.keys()
    differences = {}
    for case, expected in theirs.items():
        pairs = list(zip(*(one if isinstance(one, list) else [one] for one in (ours[case], expected)), strict=True))
        assert all(own.shape == other.shape for own, other in pairs), case
        differences[case] = max(((own - other).norm() / other.norm()).item() for own, other in pairs)
        print(f"{case}: {differences[case]:.1e}")
    for case in ours:  # what is compared must change something
        plain, mark, _ = case.partition(", LoRA")
        assert not mark or not torch.allclose(ours[plain], ours[case], rtol=0.01)
    assert not {case: value for case, value in differences.items() if not value <= BOUND}
