"""Qwen-Image 2.1: what its files are told by, pictures against diffusers' own pipeline, what is kept of text and references, LoRA."""

import types

import numpy as np
import pytest
import torch
from image_family_files import as_bytes, numbers, qwen21_config, qwen21_tensors, qwen21_vae_layout
from PIL import Image
from qwen21_twin import pipeline
from qwen_tokenizer import MARKS, VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors
from wan_vae_files import wan_vae_tensors

import comfy.model_base
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
from comfy.dit import qwen_image21
from comfy.dit.models.qwen_image21 import QwenImage21
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import ModelFileError
from comfy.ldm.qwen_image21.prefix_cache import PrefixCache
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy_extras.nodes_qwen import QwenImage21Cache, TextEncodeQwenImage21

WIDTH = 48
SIDE = 64  # of pictures, in pixels
RUN = torch.tensor([1.0, 0.5, 0.0])  # stands for a run's levels of noise


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module")
def text_tensors():
    return qwen3_vl_tensors(large=True, vocabulary=VOCABULARY, width=WIDTH)


@pytest.fixture(scope="module")
def clip(text_tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "qwen3vl.safetensors"
    save_file(text_tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    return comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.QWEN_IMAGE)


@pytest.fixture(scope="module")
def vae_tensors():
    return wan_vae_tensors(layout=qwen21_vae_layout)


@pytest.fixture(scope="module")
def vae(vae_tensors):
    return comfy.sd.VAE(sd=dict(vae_tensors))


@pytest.fixture(scope="module")
def network():
    return loaded(qwen21_tensors()).model.diffusion_model


def inputs(references=2):
    given = {"x": numbers(2, 64, 4, 6, seed=1), "timesteps": torch.tensor([0.6, 0.6]), "context": numbers(2, 9, WIDTH, seed=2)}
    latents = [numbers(1, 64, 4, 2, seed=3), numbers(2, 64, 2, 6, seed=4)][:references]
    return {**given, "ref_latents": latents, "image_slots": [3, 5][:references]}


def test_it_is_told_by_its_tensors():
    for fused in (True, False):
        tensors = {"model.diffusion_model." + name: value for name, value in qwen21_tensors(fused=fused).items()}
        model = loaded(tensors).model
        assert type(model) is comfy.model_base.QwenImage21 is QwenImage21
        assert isinstance(model.model_config, comfy.supported_models.QwenImage21)
        assert family_of(model.model_config.unet_config) is qwen_image21.FAMILY and model.model_type.name == "FLUX"
        assert model.model_sampling.shift == 0.69 and model.diffusion_model.transformer_blocks[1].img_mlp.fused is fused
        assert (model.latent_format.latent_channels, model.latent_format.spacial_downscale_ratio) == (64, 16)
    shapes = {name: tuple(value.shape) for name, value in qwen21_tensors().items()}
    assert qwen_image21.read_config({name: shape for name, shape in shapes.items() if name != "modulation.1.weight"}) is None
    with pytest.raises(ModelFileError, match="multiple of 32"):
        qwen_image21.read_config({**shapes, "transformer_blocks.0.attn.norm_q.weight": (40,)})


def test_the_real_sizes_give_the_published_names():
    config = qwen21_config(width=4096, depth=32, context=4096) | {"attention_head_dim": 128, "num_attention_heads": 32}
    network = network_of(config | {"axes_dims_rope": [16, 56, 56]})
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert len(shapes) == 265 and sum(value.numel() for value in network.parameters()) > 7_000_000_000
    assert shapes["transformer_blocks.31.img_mlp.gate_up.weight"] == (24576, 4096) and shapes["modulation.1.weight"] == (16384, 4096)
    real = read_transformer_config(shapes)
    assert real["axes_dims_rope"] == [16, 56, 56] and real["num_attention_heads"] == 32 and real["mlp_ratio"] == 3


def test_pictures_are_those_of_diffusers_pipeline(clip, vae, text_tensors, vae_tensors):
    tensors = qwen21_tensors(fused=False)
    twin, model = pipeline(text_tensors, tensors, vae_tensors), loaded(tensors)
    pixels = np.random.default_rng(0)
    pictures = [Image.fromarray(pixels.integers(0, 255, (SIDE, SIDE, colours), dtype=np.uint8)) for colours in (4, 3)]
    noise = numbers(1, 64, SIDE // 16, SIDE // 16, seed=3)
    sigmas = comfy.samplers.KSampler(model, 2, "cpu", sampler="euler", scheduler="simple").sigmas
    for shown in (None, pictures):
        given = {f"image_{n}": torch.from_numpy(np.asarray(one).copy())[None] / 255 for n, one in enumerate(shown or (), 1)}
        positive, negative, latent = TextEncodeQwenImage21.execute(clip, "a red user", "blue", vae, SIDE, given).result
        ours = comfy.sample.sample(
            model, noise, 2, 2.0, "euler", "simple", positive, negative, latent["samples"], disable_pbar=True, seed=1
        )
        theirs = twin(
            image=shown,
            prompt="a red user",
            negative_prompt="blue",
            true_cfg_scale=2.0,
            height=SIDE,
            width=SIDE,
            output_resolution=SIDE,
            sigmas=sigmas[:-1].tolist(),
            latents=noise.flatten(2).transpose(1, 2),
            output_type="latent",
        ).images
        theirs = theirs.transpose(1, 2).unflatten(2, noise.shape[-2:])
        assert (model.model.process_latent_in(ours) - theirs).norm() < 1e-3 * theirs.norm()


@pytest.mark.parametrize(("kind", "bound"), [("default", 1e-6), ("int8", 1e-3), ("int4", 1e-2)])
def test_what_is_kept_of_the_prefix_gives_the_same(network, kind, bound):
    plain = network(**inputs())
    for place in ("auto", "cpu"):
        options = {"sample_sigmas": RUN.clone(), "qwen_image21_cache": {"device": place, "dtype": kind}}
        first, again = (network(**inputs(), transformer_options=options) for _ in range(2))
        torch.testing.assert_close(first, plain)
        assert (again - plain).norm() < bound * plain.norm()
    network.reset_prefix_cache()


def test_the_prefix_is_computed_once_in_a_run_and_for_each_text(network):
    counted = []
    handle = network.transformer_blocks[0].img_mlp.register_forward_hook(lambda module, given, out: counted.append(given[0].shape[1]))
    run, other = ({"sample_sigmas": RUN.clone()} for _ in range(2))
    texts = inputs(), {**inputs(), "context": numbers(2, 9, WIDTH, seed=8)}
    for options in (run, run, other, {}, {**run, "qwen_image21_cache": {"device": "off"}}):
        for given in texts:
            network(**given, transformer_options=options)
    handle.remove()
    network.reset_prefix_cache()
    whole, picture = 9 + 8 + 12 + 24, 24
    assert counted == [whole, whole, picture, picture, whole, whole, whole, whole, whole, whole]


def test_a_run_that_is_over_leaves_nothing():
    cache, run = PrefixCache(), RUN.clone()
    assert cache.select({"sample_sigmas": run}, [RUN, 1], 8, torch.device("cpu")) is not None
    assert cache._prefixes
    del run
    assert not cache._prefixes
    with pytest.raises(ValueError, match="'disk' as 'int2'"):
        cache.select({"qwen_image21_cache": {"device": "disk", "dtype": "int2"}}, [], 8, torch.device("cpu"))


def test_hooks_see_all_tokens_at_every_step(network):
    seen, plain = [], network(**inputs())

    def replaced(given, extra):
        seen.append((given["img"].shape[1], given["prefix_len"]))
        return extra["original_block"](given)

    options = {"sample_sigmas": RUN.clone(), "patches_replace": {"dit": {("single_block", 1): replaced}}}
    for _ in range(2):
        torch.testing.assert_close(network(**inputs(), transformer_options=options), plain)
    assert seen == [(53, 29)] * 2
    changed = network(**inputs(), transformer_options={"patches": {"attn1_patch": [lambda q, k, v, **ignored: {"v": v * 2}]}})
    assert not torch.allclose(changed, plain)
    doubled = network(**inputs(), transformer_options={"patches": {"single_block": [lambda given: {"img": given["img"] * 2}]}})
    assert not torch.allclose(doubled, plain)


def test_weights_that_change_within_a_run_keep_nothing(network):
    model = loaded(qwen21_tensors())
    seen = []
    model.model.diffusion_model._forward = lambda x, *arguments, **ignored: seen.append(arguments[-1]["qwen_image21_cache"]) or x
    model.model.current_patcher = types.SimpleNamespace(current_hooks=object())
    model.model._apply_model(numbers(1, 64, 2, 2), torch.ones(1), c_crossattn=numbers(1, 3, WIDTH), transformer_options={})
    assert seen == [{"device": "off"}]


def test_pictures_stand_among_the_text_or_are_seen_by_the_text_encoder_alone(clip, vae):
    picture = torch.rand(1, 96, 70, 3, generator=torch.Generator().manual_seed(1))
    execute = TextEncodeQwenImage21.execute
    ((told, values),), ((without, _),), latent = execute(clip, "x", "", vae, 0, {"image_2": None, "image_10": picture}).result
    assert latent["samples"].shape == (1, 64, 6, 4) and values["reference_latents"][0].shape == (1, 64, 6, 4)
    (((seen, kept),), _, _) = execute(clip, "x", "", None, 0, {"image_10": picture}).result
    assert "image_slots" not in kept and "reference_latents" not in kept and seen.shape[1] == told.shape[1] + 6
    (slot,) = values["image_slots"]
    assert torch.equal(seen[:, :slot], told[:, :slot]) and torch.equal(seen[:, slot + 6 :], told[:, slot:])
    tokens = [token[0] for token in clip.tokenize("x", images=[picture])["qwen3vl_8b"][0]]
    marks = [place for place, token in enumerate(tokens) if token == MARKS["<|im_start|>"]]
    assert slot == next(place for place, token in enumerate(tokens) if isinstance(token, dict)) - marks[1]
    assert without.shape[1] == told.shape[1]  # an empty prompt is a space
    plain = execute(clip, "x", "y", vae).result
    assert plain[2]["samples"].shape == (1, 64, 64, 64) and "reference_latents" not in plain[0][0][1]


def test_the_cache_node_says_it_to_a_clone():
    model = loaded(qwen21_tensors())
    (said,) = QwenImage21Cache.execute(model, "cpu", "int8").result
    assert said.model_options["transformer_options"]["qwen_image21_cache"] == {"device": "cpu", "dtype": "int8"}
    assert "qwen_image21_cache" not in model.model_options.get("transformer_options", {})


def test_lora_names_reach_both_parts_of_a_joint_weight():
    names = model_lora_keys_unet(loaded(qwen21_tensors()).model, {})
    weight = "diffusion_model.transformer_blocks.1.img_mlp.gate_up.weight"
    assert names["transformer.transformer_blocks.1.img_mlp.gate_layer"] == (weight, (0, 0, 192))
    assert names["diffusion_model.transformer_blocks.1.img_mlp.proj"] == (weight, (0, 192, 192))
    assert names["lycoris_transformer_blocks_1_img_mlp_gate_up"] == weight
    assert names["transformer_blocks.0.attn.to_out.0"] == "diffusion_model.transformer_blocks.0.attn.to_out.0.weight"


def test_the_autoencoder_takes_and_gives_transparency(vae, vae_tensors):
    assert (vae.latent_channels, vae.output_channels, vae.latent_dim, vae.spacial_compression_encode()) == (64, 4, 2, 16)
    picture = torch.rand(1, 32, 48, 4, generator=torch.Generator().manual_seed(1))
    latent = vae.encode(picture)
    assert latent.shape == (1, 64, 2, 3) and vae.decode(latent).shape == (1, 32, 48, 4)
    opaque = torch.cat([picture[..., :3], torch.ones(1, 32, 48, 1)], dim=-1)
    assert torch.equal(vae.encode(picture[..., :3]), vae.encode(opaque)) and not torch.allclose(vae.encode(opaque), latent)
    saved = vae.get_sd()
    assert saved.keys() == {name for name in vae_tensors if ".time_conv." not in name}
    assert all(torch.equal(saved[name].view(vae_tensors[name].shape), vae_tensors[name]) for name in saved)
