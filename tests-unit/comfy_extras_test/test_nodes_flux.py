"""Flux's nodes: guidance, prompts for two encoders, Kontext's sizes and pictures, kept keys and values, latents of sixteen channels."""

from types import SimpleNamespace

import pytest
import torch

import comfy_extras.nodes_flux as nodes_flux
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_sd3 import EmptySD3LatentImage


def test_guidance_is_set_and_taken_away():
    given = [["text", {"a": 1}]]
    assert nodes_flux.FluxGuidance.execute(given, 2.5) == ([["text", {"a": 1, "guidance": 2.5}]],)
    assert nodes_flux.FluxDisableGuidance.execute(given) == ([["text", {"a": 1, "guidance": None}]],)
    assert given == [["text", {"a": 1}]]


def test_each_encoder_gets_its_text():
    clip = SimpleNamespace(
        tokenize=lambda text: {"l": f"l:{text}", "t5xxl": f"t5:{text}"},
        encode_from_tokens_scheduled=lambda tokens, add_dict: (tokens, add_dict),
    )
    (result,) = nodes_flux.CLIPTextEncodeFlux.execute(clip, "short", "long", 3.0)
    assert result == ({"l": "l:short", "t5xxl": "t5:long"}, {"guidance": 3.0})


@pytest.mark.parametrize(
    ("width", "height", "size"), [(600, 600, (1024, 1024)), (400, 90, (1568, 672)), (90, 400, (672, 1568)), (300, 200, (1248, 832))]
)
def test_pictures_for_kontext_get_the_nearest_size(width, height, size):
    (scaled,) = nodes_flux.FluxKontextImageScale.execute(torch.rand(1, height, width, 3))
    assert scaled.shape == (1, size[1], size[0], 3)


def test_pictures_to_look_at_are_added():
    one, two = {"samples": torch.ones(1)}, {"samples": torch.zeros(1)}
    (first,) = ReferenceLatent.execute([["text", {}]], one)
    (second,) = ReferenceLatent.execute(first, two)
    assert second[0][1]["reference_latents"] == [one["samples"], two["samples"]] and len(first[0][1]["reference_latents"]) == 1
    assert ReferenceLatent.execute(first) == (first,)


@pytest.mark.parametrize(("chosen", "method"), [("offset", "offset"), ("uxo/uno", "uxo"), ("index_timestep_zero", "index_timestep_zero")])
def test_the_method_is_set(chosen, method):
    (result,) = nodes_flux.FluxKontextMultiReferenceLatentMethod.execute([["text", {}]], chosen)
    assert result == [["text", {"reference_latents_method": method}]]


def test_latents_have_sixteen_channels():
    (latent,) = EmptySD3LatentImage.execute(64, 32, 3)
    assert latent["samples"].shape == (3, 16, 4, 8) and latent["downscale_ratio_spacial"] == 8 and not latent["samples"].any()


def test_keys_of_references_are_kept_from_the_first_step_on():
    kept = nodes_flux.KV_Attn_Input()
    options = {"block_type": "double", "block_index": 0, "reference_image_num_tokens": [2, 1], "transformer_options": {}}
    k = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 2, 6, 4)
    assert kept(k, k, k, extra_options={**options, "reference_image_num_tokens": []}) == {} and not kept.cache
    assert torch.equal(kept(k, k, k, extra_options=options)["k"], k)
    inputs = {"img": torch.zeros(1, 5, 4), "transformer_options": options}
    assert kept.without_references(inputs)["img"].shape == (1, 2, 4)
    later = kept(k[:, :, :3], k[:, :, :3] + 10, k[:, :, :3], extra_options=options)
    assert later["k"][0, 0, :, 0].tolist() == [10, 11, 12, 3, 4, 5] and later["v"].shape == k.shape and later["q"].shape[2] == 3
    kept.cleanup()
    assert kept.without_references(inputs) is inputs


def test_references_are_computed_in_the_first_step_only():
    from transformer_files import flux_tensors

    import comfy.sample
    import comfy.sd

    numbers = torch.Generator().manual_seed(0)
    model = comfy.sd.load_diffusion_model_state_dict(flux_tensors(depth=1, single=1))
    (cached,) = nodes_flux.FluxKVCache.execute(model)
    seen = []
    cached.set_model_post_input_patch(lambda inputs: seen.append(inputs["img"].shape[1]) or inputs)
    values = {"pooled_output": torch.zeros(1, 32), "reference_latents": [torch.randn(1, 16, 4, 4, generator=numbers)]}
    positive = [[torch.randn(1, 3, 64, generator=numbers), values]]
    noise = torch.randn(1, 16, 4, 6, generator=numbers)
    arguments = (noise, 3, 1.0, "euler", "simple", positive, positive, torch.zeros_like(noise))
    with torch.inference_mode():
        latent = comfy.sample.sample(cached, *arguments, disable_pbar=True, seed=0)
        again = comfy.sample.sample(cached, *arguments, disable_pbar=True, seed=0)
    assert seen == [10, 6, 6] * 2 and latent.isfinite().all() and torch.equal(latent, again)
    cached.unpatch_model()
    assert model.model.diffusion_model.params.default_ref_method == "offset"
