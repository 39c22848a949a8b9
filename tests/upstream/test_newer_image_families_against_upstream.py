"""Small models of newer image families and their text encoders give upstream's results.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python
pytest tests/upstream/test_newer_image_families_against_upstream.py
"""

import sys

import pytest
import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path.insert(0, str(PROJECT / "tests-unit" / "comfy_test"))

from ideogram_files import ideogram_config, ideogram_tensors  # noqa: E402
from image_family_files import (  # noqa: E402
    ernie_config,
    krea2_config,
    krea2_tensors,
    mage_config,
    mage_tensors,
    mage_vae_tensors,
    numbers,
    omnigen_config,
    omnigen_tensors,
)
from pixeldit_files import pid_shapes, pid_tensors, pixeldit_config, pixeldit_tensors  # noqa: E402
from test_image_families_against_upstream import encoded as encoded_words  # noqa: E402
from test_image_families_against_upstream import lora, sampled  # noqa: E402
from text_encoder_files import text_model  # noqa: E402
from transformer_files import config_of, qwen3_vl_tensors, qwen_text_tensors, random_tensors  # noqa: E402

BOUND = 1e-3
EYES = {"hidden_size": 64, "intermediate_size": 48, "depth": 4, "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 16}
LARGE_EYES = {**EYES, "depth": 27, "deepstack_visual_indexes": [8, 16, 24]}
TEMPLATE = [151644, 20, 21, 151645, 198, 151644, 872, 198]  # a system's words, and where the user's begin

pytestmark = against_upstream(1200)


def encoded(module, name, part, *, layers=3, width=32, large=False, arguments=None, opened=TEMPLATE):
    """A case of ``encoded``: Qwen3-VL told words alone, and words about two pictures."""
    tensors = qwen3_vl_tensors(large=large, vocabulary=151656, width=width, layers=layers, published=False)
    sizes = {"hidden_size": width, "intermediate_size": 96, "num_hidden_layers": layers, "vocab_size": 151656}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    words = [int(value) for value in torch.randint(5, 390, (9,), generator=torch.Generator().manual_seed(5))]
    picture = {"type": "image", "data": torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(6))}
    square = {"type": "image", "data": torch.rand(1, 70, 70, 3, generator=torch.Generator().manual_seed(7))}
    texts = [[*opened, *words], [*opened, *words[:3], picture, 7, square, *words[3:]]]
    case = {"run": "encoded", "module": module, "name": name, "part": part, "sizes": sizes, "eyes": LARGE_EYES if large else EYES}
    return {**case, "tensors": tensors, "tokens": texts, "arguments": arguments}


def krea2_cases():
    plain = {"width": 384, "shape": (2, 16, 1, 7, 6)}
    references = [numbers(1, 16, 1, 4, 2, seed=4), numbers(1, 16, 1, 3, 6, seed=5)]
    layers = ("transformer.transformer_blocks.1.attn.to_out.0", 256, 256), ("diffusion_model.text_fusion.refiner_blocks.0.ff.up", 32, 128)
    layers += (("time_mod_proj", 256, 1536),)

    def case(values=None, **more):
        return sampled("Krea2", krea2_config(), krea2_tensors(), **{**plain, "values": values, **more})

    return {
        "Krea 2": case(),
        "Krea 2, references": case({"reference_latents": references, "reference_latents_method": "index"}),
        "Krea 2, references at time 0": case({"reference_latents": references, "reference_latents_method": "index_timestep_zero"}),
        "Krea 2, references without a way": case({"reference_latents": references}),
        "Krea 2, LoRA": case(lora=lora(*layers)),
        "Qwen3-VL of Krea 2": encoded("krea2", "te", "qwen3vl_4b", layers=36, arguments={}),
    }


def mage_cases():
    plain = {"width": 48, "shape": (2, 128, 5, 4)}
    references = {"reference_latents": [numbers(1, 128, 3, 4, seed=4), numbers(2, 128, 5, 2, seed=5)]}
    layers = ("transformer.transformer_blocks.1.attn.to_q", 64, 64), ("transformer_blocks.0.img_mlp.net.2", 256, 64)
    pictures = [torch.rand(1, 48, 80, 3, generator=torch.Generator().manual_seed(1))]
    halves = {
        "DConvEncoder": {"hidden_size": 32, "num_blocks": 2, "head_size": 32, "num_head_blocks": 1},
        "DConvDenoiser": {"hidden_size": 32, "hidden_size_x": 8, "num_blocks": 3, "num_cond_blocks": 2},
    }

    def case(values=None, **more):
        return sampled("MageFlow", mage_config(), mage_tensors(), **{**plain, "values": values, **more})

    return {
        "Mage-Flow": case(),
        "Mage-Flow, references": case(references),
        "Mage-Flow, LoRA": case(lora=lora(*layers)),
        "Qwen3-VL of Mage-Flow": encoded("mage_flow", "te", "qwen3vl_4b", arguments={}),
        "Mage-Flow's autoencoder": {
            "run": "autoencoded",
            "tensors": mage_vae_tensors(),
            "pictures": pictures,
            "latents": [numbers(1, 128, 34, 7, seed=2)],
            "mage": halves,
        },
    }


def with_masks(case):
    """*case* whose texts say that none of their tokens are padding."""
    for side in ("positive", "negative"):
        case[side] = [(text, {**values, "attention_mask": torch.ones(text.shape[:2], dtype=torch.long)}) for text, values in case[side]]
    return case


def omnigen_cases():
    references = {"reference_latents": [numbers(1, 16, 4, 6, seed=4), numbers(1, 16, 3, 5, seed=5)]}
    cases = {}
    for name, family, sizes in (("OmniGen2", "Omnigen2", {}), ("Boogu", "Boogu", {"double": 2})):
        made = omnigen_config(**sizes), omnigen_tensors(**sizes)
        stack = "single_stream_layers" if sizes else "layers"
        layers = (f"diffusion_model.{stack}.1.attn.to_q", 96, 96), (f"diffusion_model.{stack}.0.feed_forward.linear_2", 512, 96)
        plain = {"width": 48, "shape": (2, 16, 7, 6)}
        cases |= {
            name: with_masks(sampled(family, *made, **plain)),
            f"{name}, references": with_masks(sampled(family, *made, **plain, values=references)),
            f"{name}, LoRA": with_masks(sampled(family, *made, **plain, lora=lora(*layers))),
        }
    of_omnigen = encoded_words("omnigen2", "te", "qwen25_3b", qwen_text_tensors(eyes=False, keys=2), 3, arguments={})
    of_omnigen["sizes"]["num_key_value_heads"] = 2
    cases["Qwen 2.5 of OmniGen2"] = of_omnigen
    cases["Qwen3-VL of Boogu"] = encoded("boogu", "te", "qwen3vl_8b", large=True, arguments={})
    return cases


def ernie_cases():
    made = ernie_config(), random_tensors(ernie_config())
    plain = {"width": 48, "shape": (2, 128, 5, 4)}
    layers = ("diffusion_model.layers.1.self_attention.to_q", 64, 64), ("diffusion_model.layers.0.mlp.linear_fc2", 192, 64)
    return {
        "ERNIE-Image": sampled("ErnieImage", *made, **plain),
        "ERNIE-Image, LoRA": sampled("ErnieImage", *made, **plain, lora=lora(*layers)),
    }


def ideogram_cases():
    plain = {"width": 13 * 32, "shape": (2, 128, 5, 4)}
    layers = ("diffusion_model.layers.1.attention.qkv", 256, 768), ("diffusion_model.layers.0.feed_forward.w2", 512, 256)

    def case(values=None, **more):
        return sampled("Ideogram4", ideogram_config(), ideogram_tensors(), **{**plain, "values": values, **more})

    padded = case()
    for side in ("positive", "negative"):
        padded[side] = [(text, {"attention_mask": torch.arange(text.shape[1])[None] < text.shape[1] - 2}) for text, _ in padded[side]]
    return {
        "Ideogram 4": case(),
        "Ideogram 4, padding": padded,
        "Ideogram 4, LoRA": case(lora=lora(*layers)),
        "Qwen3-VL of Ideogram 4": encoded("ideogram4", "te_qwen3vl", "qwen3vl_8b", layers=36, large=True, arguments={}),
    }


def pixeldit_cases():
    made, plain = (pixeldit_config(), pixeldit_tensors()), {"width": 32, "shape": (2, 3, 11, 14)}
    layers = ("diffusion_model.patch_blocks.1.attn.qkv_x", 64, 192), ("diffusion_model.pixel_blocks.0.attn.proj", 32, 32)
    of_text = encoded_words("pixeldit", "pixeldit_te", "gemma2_2b", text_model("gemma2_2b", vocabulary=400), 3, inner=128, arguments={})
    numbered = torch.randint(5, 390, (420,), generator=torch.Generator().manual_seed(5)).tolist()
    of_text["tokens"] = [[2, *numbered[:340], *[0] * 60], [2, *numbered[:40]]]
    told = {"lq_latent": numbers(1, 16, 2, 5, seed=4), "degrade_sigma": torch.tensor([0.3])}
    cells = {"lq_latent": numbers(1, 128, 2, 2, seed=4), "degrade_sigma": torch.tensor([0.0])}
    others = {"PiD": ({}, told), "PiD 1.5": ({"later": True}, told), "PiD 1.5 for Flux.2": ({"later": True, "channels": 32}, cells)}

    def decoded(own, given):
        return sampled("PiD", config_of(pid_shapes(**own)), pid_tensors(**own), **plain, values=given)

    return {
        **{
            name: sampled("PiD", config_of(pid_shapes(**own)), pid_tensors(**own), **plain, values=given)
            for name, (own, given) in others.items()
        },
        "PixelDiT": sampled("PixelDiTT2I", *made, **plain),
        "PixelDiT, LoRA": sampled("PixelDiTT2I", *made, **plain, lora=lora(*layers)),
        "Gemma 2 of PixelDiT": of_text,
    }


def qwen3_vl_cases():
    return {
        "Qwen3-VL 4B": encoded("qwen3vl", "te", "qwen3vl_4b", arguments={"model_type": "qwen3vl_4b"}),
        "Qwen3-VL 8B": encoded("qwen3vl", "te", "qwen3vl_8b", large=True, arguments={"model_type": "qwen3vl_8b"}),
    }


def measured(cases, folder):
    """{case: greatest relative difference of its results}, printed; the results that are ours."""
    torch.save(cases, folder / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", folder, [folder / "cases.pt"])
    differences = {}
    for name, results in theirs.items():
        pairs = zip(results, ours[name]) if isinstance(results, list) else [(results, ours[name])]
        differences[name] = max(((own - other).norm() / other.norm()).item() for other, own in pairs)
        print(f"{name:40} {differences[name]:.1e}")
    return differences, ours


@pytest.mark.parametrize("cases", [qwen3_vl_cases, krea2_cases, mage_cases, omnigen_cases, ernie_cases, ideogram_cases, pixeldit_cases])
def test_results_are_upstreams(cases, tmp_path):
    differences, ours = measured(cases(), tmp_path)
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    for name in ours:
        plain, comma, _ = name.partition(", ")
        if comma and "without" not in name:
            assert (ours[name] - ours[plain]).norm() > 0.01 * ours[plain].norm(), name
