"""Small models of Qwen-Image, Z-Image, Lumina Image 2, their text encoders and autoencoder give upstream's results.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_small_models_against_upstream.py
"""

import sys

import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path.insert(0, str(PROJECT / "tests-unit" / "comfy_test"))

from transformer_files import lumina2_config, lumina_tensors, qwen_image_config, qwen_image_tensors, qwen_text_tensors, z_image_config  # noqa: E402
from wan_vae_files import wan_vae_tensors  # noqa: E402

BOUND = 1e-3

pytestmark = against_upstream(1200)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(*layers):
    """Rank 4 for each (name of the layer, in, out), as diffusers writes it."""
    tensors = {}
    for number, (name, inner, outer) in enumerate(layers):
        tensors[f"transformer.{name}.lora_A.weight"] = drawn(4, inner, seed=90 + number) * inner**-0.5
        tensors[f"transformer.{name}.lora_B.weight"] = drawn(outer, 4, seed=95 + number) * 0.5
    return tensors


def sampled(family, config, tensors, *, width, size, frames=None, batch=1, values=None, **more):
    """A case of ``sampled``: two texts, of which the first has a mask, and *values* of both conditionings."""
    shape = (batch, 16, *(() if frames is None else (frames,)), *size)
    mask = torch.tensor([[1] * 6 + [0]])
    return {
        "run": "sampled",
        "family": family,
        "unet_config": config,
        "tensors": tensors,
        "positive": [(drawn(1, 7, width, seed=1), {"attention_mask": mask, **(values or {})})],
        "negative": [(drawn(1, 4, width, seed=2), values or {})],
        "latent": torch.zeros(shape),
        "noise": drawn(*shape, seed=3),
        **more,
    }


def qwen_cases():
    plain = {"width": 48, "size": (7, 6), "frames": 1}
    references = [drawn(1, 16, 1, 6, 4, seed=4), drawn(1, 16, 1, 4, 8, seed=5), drawn(1, 16, 1, 4, 4, seed=6)]
    layer = "transformer_blocks.1."
    own_lora = lora((layer + "attn.to_q", 64, 64), (layer + "img_mlp.net.2", 256, 64), (layer + "txt_mod.1", 64, 384))

    def case(sizes=None, **more):
        return sampled("QwenImage", qwen_image_config(**(sizes or {})), qwen_image_tensors(**(sizes or {})), **{**plain, **more})

    return {
        "Qwen-Image": case(),
        "Qwen-Image, batch": case(batch=2),
        "Qwen-Image, LoRA": case(lora=own_lora),
        "Qwen-Image-Edit": case(values={"reference_latents": references}),
        "Qwen-Image-Edit, offset": case(values={"reference_latents": references, "reference_latents_method": "offset"}),
        "Qwen-Image-Edit, at time 0": case({"at_time_zero": True}, values={"reference_latents": references}),
        "Qwen-Image-Layered": case({"layered": True}, frames=3, values={"reference_latents": references[:1]}),
    }


def lumina_cases():
    sights = [(drawn(1, 6, 40, seed=7), (3, 32, 48)), (drawn(1, 4, 40, seed=8), (3, 32, 32))]
    looks = {
        "reference_latents": [drawn(1, 16, 6, 4, seed=4), drawn(1, 16, 4, 4, seed=5)],
        "reference_latents_text_embeds": [drawn(1, 3, 64, seed=10), drawn(1, 2, 64, seed=11), drawn(1, 5, 64, seed=12)],
    }
    layer = "layers.1."
    own_lora = lora((layer + "attention.to_k", 256, 256), (layer + "attention.to_out.0", 256, 256), (layer + "feed_forward.w2", 320, 256))

    def case(family, config, **more):
        return sampled(family, config, lumina_tensors(config), **{"width": 64, "size": (7, 6), **more})

    omni = z_image_config(omni=True)
    return {
        "Z-Image": case("ZImage", z_image_config()),
        "Z-Image, batch": case("ZImage", z_image_config(), batch=2),
        "Z-Image, LoRA": case("ZImage", z_image_config(), lora=own_lora),
        "Z-Image omni": case("ZImage", omni, values={**looks, "clip_vision_outputs": sights}),
        "Z-Image omni without eyes": case("ZImage", omni, values=looks),
        "Lumina Image 2": case("Lumina2", lumina2_config()),
    }


def text_cases():
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes["vocab_size"] = 400
    eyes = {"hidden_size": 160, "intermediate_size": 96, "num_heads": 2, "num_layers": 3, "output_hidden_size": 64}
    ids = [int(value) for value in torch.randint(5, 390, (12,), generator=torch.Generator().manual_seed(5))]
    generator = torch.Generator().manual_seed(9)
    pictures = [{"type": "image", "data": torch.rand(1, *size, 3, generator=generator)} for size in ((130, 90), (56, 200))]
    about_two = [*ids[:4], pictures[0], *ids[4:6], pictures[1], *ids[6:]]
    seeing = {"sizes": sizes, "eyes": eyes, "tensors": qwen_text_tensors(eyes=True)}
    qwen25 = {"run": "encoded", "module": "qwen_image", "name": "QwenImageTEModel", "part": "qwen25_7b", **seeing}
    qwen3 = {"run": "encoded", "module": "z_image", "name": "ZImageTEModel", "part": "qwen3_4b", "sizes": sizes, "eyes": {}}
    marked = [7, 151644 % 400, *ids]  # no mark of a speaker in so small a vocabulary: only the last state is kept, as in ComfyUI
    return {
        "Qwen2.5-VL": {**qwen25, "tokens": [ids, marked]},
        "Qwen2.5-VL, pictures": {**qwen25, "tokens": [[*ids[:4], pictures[0], *ids[4:]], about_two]},
        "Qwen 3": {**qwen3, "tensors": qwen_text_tensors(eyes=False, normalised=True), "tokens": [ids, [*ids, 151643 % 400]]},
    }


def cases():
    pictures = [torch.rand(1, 48, 32, 3, generator=torch.Generator().manual_seed(1)), torch.rand(5, 32, 32, 3)]
    latents = [drawn(1, 16, 1, 10, 8, seed=2), drawn(1, 16, 3, 4, 4, seed=3)]
    vae = {"run": "autoencoded", "tensors": wan_vae_tensors(), "pictures": pictures, "latents": latents}
    layered = {**vae, "tensors": wan_vae_tensors(channels=4), "latents": latents[:1]}
    return {**qwen_cases(), **lumina_cases(), **text_cases(), "Wan's autoencoder": vae, "Wan's autoencoder, four channels": layered}


def test_every_case_gives_upstreams_result(tmp_path):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours.keys() == theirs.keys() and len(theirs) >= 18
    differences = {}
    for case, expected in theirs.items():
        pairs = list(zip(*(one if isinstance(one, list) else [one] for one in (ours[case], expected)), strict=True))
        assert all(own.shape == other.shape for own, other in pairs), case
        differences[case] = max(((own - other).norm() / other.norm()).item() for own, other in pairs)
        print(f"{case}: {differences[case]:.1e}")
    for family in ("Qwen-Image", "Z-Image"):  # what is compared must change something
        assert not torch.allclose(ours[family], ours[f"{family}, LoRA"], rtol=0.01)
    assert not {case: value for case, value in differences.items() if not value <= BOUND}
