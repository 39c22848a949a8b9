"""Z-Image and Lumina Image 2: what their files are told by, the network against diffusers' own, its hooks, pictures to look at, LoRA."""

import types

import pytest
import torch
from quantised_files import quantised, settings_for, text
from transformer_files import config_of, lumina2_config, lumina_tensors, network_of, z_image_config

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import lumina
from comfy.dit.diffusers_files import as_published_transformer
from comfy.dit.models.lumina import Lumina2
from comfy.families.model_errors import ModelFileError
from comfy.families.weight_source import StateDictSource
from comfy.ldm.lumina import layers
from comfy.ldm.lumina.model import NextDiT
from comfy.loading.lora_keys import model_lora_keys_unet


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    network = network_of(z_image_config())
    network.load_weights(lumina_tensors(z_image_config()))
    return network


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def inputs(batch=1, size=(6, 8)):
    return {"x": numbers(batch, 16, *size, seed=1), "timesteps": torch.full((batch,), 0.6), "context": numbers(batch, 5, 64, seed=2)}


def in_diffusers_names(config):
    """A small Z-Image as diffusers saves it."""
    published = lumina_tensors(config)
    found = {}
    for name, place in lumina.diffusers_places(config).items():
        if place.key in published:
            value = published[place.key]
            found[name] = (value[place.start : place.start + place.length] if place.length else value).clone()
    return found


@pytest.mark.parametrize(
    ("config", "kind", "shift"),
    [(z_image_config(), "ZImage", 3.0), (z_image_config(omni=True), "ZImage", 3.0), (lumina2_config(), "Lumina2", 6.0)],
)
def test_a_file_is_told_by_its_tensors(config, kind, shift):
    tensors = {"model.diffusion_model." + key: value for key, value in lumina_tensors(config).items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.Lumina2 is Lumina2 and type(model.model_config) is getattr(comfy.supported_models, kind)
    assert model.model_type.name == "FLOW" and (model.model_sampling.shift, model.model_sampling.multiplier) == (shift, 1.0)
    assert model.latent_format.latent_channels == 16 and not tensors
    assert (model.diffusion_model.siglip_embedder is not None) is ("siglip_feat_dim" in config)


def test_the_real_sizes_give_the_published_names():
    shapes = {
        "cap_embedder.1.weight": (3840, 2560),
        "x_embedder.weight": (3840, 64),
        "cap_pad_token": (1, 3840),
        "noise_refiner.0.attention.k_norm.weight": (128,),
        "noise_refiner.0.attention.qkv.weight": (11520, 3840),
        "noise_refiner.0.feed_forward.w1.weight": (10240, 3840),
        "noise_refiner.0.adaLN_modulation.0.weight": (15360, 256),
        "noise_refiner.1.": (),
        **{f"layers.{number}.": () for number in range(30)},
    }
    config = config_of(shapes)
    assert (config["n_heads"], config["n_kv_heads"], config["axes_dims"], config["ffn_dim_multiplier"]) == (30, 30, [32, 48, 48], 8 / 3)
    network = network_of(config)
    found = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert {key: shape for key, shape in shapes.items() if not key.endswith(".")}.items() <= found.items()
    assert found["final_layer.adaLN_modulation.1.weight"] == (3840, 256) and found["t_embedder.mlp.2.weight"] == (256, 1024)
    assert 6_000_000_000 < sum(value.numel() for value in network.parameters()) < 6_300_000_000


def test_relatives_are_not_taken_and_odd_heads_are_refused():
    shapes = {name: tuple(value.shape) for name, value in lumina_tensors(z_image_config()).items()}
    assert lumina.read_config({**shapes, "dec_net.cond_embed.weight": (8, 8)}) is None
    with pytest.raises(ModelFileError, match="multiple of 16"):
        lumina.read_config({**shapes, "noise_refiner.0.attention.k_norm.weight": (120,)})


def test_it_computes_what_diffusers_computes(network):
    from diffusers import ZImageTransformer2DModel
    from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

    sizes = {"dim": 256, "n_layers": 2, "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 64, "axes_dims": [32, 48, 48]}
    twin = ZImageTransformer2DModel(**sizes).eval()
    for block in (*twin.layers, *twin.noise_refiner, *twin.context_refiner):  # it knows the published width alone
        for name, inner, outer in (("w1", 256, 320), ("w2", 320, 256), ("w3", 256, 320)):
            setattr(block.feed_forward, name, torch.nn.Linear(inner, outer, bias=False))
    twin.t_embedder = TimestepEmbedder(256, mid_size=256)
    twin.load_state_dict(in_diffusers_names(z_image_config()))
    given = inputs()
    expected = twin([given["x"][0][:, None]], 1 - given["timesteps"], [given["context"][0]], return_dict=False)[0][0]
    torch.testing.assert_close(network(**given), -expected[None, :, 0], rtol=1e-3, atol=2e-4)


def test_odd_sides_and_batches(network):
    given = inputs(2, (7, 5))
    both = network(**given)
    assert both.shape == (2, 16, 7, 5)
    alone = network(**{name: value[:1] for name, value in given.items()})
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_file_in_diffusers_names_gives_the_same_network():
    config = z_image_config()
    source = as_published_transformer(StateDictSource(in_diffusers_names(config)))
    taken, published = source.take(source.shapes(), None), lumina_tensors(config)
    assert taken.keys() == published.keys() and all(torch.equal(taken[key], value) for key, value in published.items())


def test_patches_are_called_where_comfyui_calls_them(network):
    calls = []

    def after(args):
        calls.append((args.get("block_type", "double"), args["block_index"], tuple(args["img"].shape), tuple(args["txt"].shape)))
        return {"img": args["img"] * 1.5}

    patched = network(**inputs(), transformer_options={"patches": {"double_block": [after], "noise_refiner": [after]}})
    shapes = (1, 32, 256), (1, 32, 256)  # both filled up to 32 tokens
    assert calls == [(kind, number, *shapes) for kind in ("noise_refiner", "double") for number in (0, 1)]
    assert not torch.allclose(patched, network(**inputs()))


def test_places_of_a_picture_can_be_stretched_and_moved(network):
    places = layers.pos_ids_x(7, 2, 3, 1, "cpu", {"rope_options": {"scale_y": 2.0, "shift_x": 0.5}})
    assert places.tolist() == [[[7, 0, 0.5], [7, 0, 1.5], [7, 0, 2.5], [7, 2, 0.5], [7, 2, 1.5], [7, 2, 2.5]]]
    stretched = network(**inputs(), transformer_options={"rope_options": {"scale_x": 0.5}})
    assert not torch.allclose(stretched, network(**inputs()))


def test_tokens_at_another_time_are_scaled_by_the_second_half():
    x, scale = numbers(1, 6, 4), numbers(2, 4, seed=1)
    scaled = layers.modulate(x.clone(), scale, [(4, 6), (1, 2)])
    other = torch.tensor([False, True, False, False, True, True])
    assert torch.equal(scaled[:, other], x[:, other] * (1 + scale[1])) and torch.equal(scaled[:, ~other], x[:, ~other] * (1 + scale[0]))
    assert layers.invert_slices([(4, 6), (1, 2)], 8) == [(0, 1), (2, 4), (6, 8)] and layers.invert_slices([], 2) == [(0, 2)]


def test_half_precision_stays_finite():
    assert layers.clamp_fp16(torch.tensor([float("inf"), float("nan")], dtype=torch.float16)).tolist() == [65504.0, 0.0]


def test_the_omni_model_looks_at_pictures():
    config = z_image_config(omni=True)
    network = network_of(config)
    network.load_weights(lumina_tensors(config))
    picture, sight = numbers(1, 16, 4, 4, seed=3), numbers(1, 2, 3, 40, seed=4)
    words = [numbers(1, 3, 64, seed=5), numbers(1, 2, 64, seed=6)]
    results = [
        network(**inputs(), **more)
        for more in (
            {},
            {"ref_latents": [picture]},
            {"ref_latents": [picture], "ref_contexts": words},
            {"ref_latents": [picture], "ref_contexts": words, "siglip_feats": [sight]},
        )
    ]
    assert all(result.shape == (1, 16, 6, 8) for result in results)
    assert not any(torch.allclose(one, other) for number, one in enumerate(results) for other in results[:number])
    assert network(**inputs(2), ref_latents=[picture], ref_contexts=[words[0], words[1], words[0]]).shape == (2, 16, 6, 8)


def test_conditioning_is_what_the_network_takes():
    tensors = lumina_tensors(z_image_config(omni=True))
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    sight = types.SimpleNamespace(last_hidden_state=numbers(1, 6, 40), image_sizes=[(3, 32, 48)])
    latent, given = numbers(1, 16, 4, 4), {"cross_attn": numbers(1, 5, 64), "noise": numbers(1, 16, 4, 4), "device": torch.device("cpu")}
    conds = model.extra_conds(
        **given, attention_mask=torch.tensor([[1, 1, 1, 0, 0]]), reference_latents=[latent], clip_vision_outputs=[sight]
    )
    assert conds["num_tokens"].cond == 3 and "attention_mask" in conds and conds["siglip_feats"].cond[0].shape == (1, 2, 3, 40)
    assert torch.equal(conds["ref_latents"].cond[0], model.process_latent_in(latent))
    plain = model.extra_conds(**given, attention_mask=torch.ones(1, 5))
    assert "attention_mask" not in plain and "ref_latents" not in plain and plain["num_tokens"].cond == 5
    assert model.extra_conds_shapes(reference_latents=[latent]) == {"ref_latents": [1, 16, 16]}
    with pytest.raises(ValueError, match="takes texts encoded to 64 "):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 5, 48)})


def test_fused_weights_of_quantised_files_stay_quantised():
    config = z_image_config()
    tensors, values = {}, dict(lumina_tensors(config))
    for name, value in lumina_tensors(config).items():
        if name.endswith("attention.qkv.weight"):
            parts, values[name] = quantised("fp8 rows", value)
            layer = name.removesuffix("weight")
            tensors |= {layer + suffix: part for suffix, part in parts.items()} | {layer + "comfy_quant": text(settings_for("fp8 rows"))}
        else:
            tensors[name] = value
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model.diffusion_model
    assert model.layers[0].attention.qkv.quantised is not None
    plain = network_of(config)
    plain.load_weights(values)
    torch.testing.assert_close(model(**inputs()), plain(**inputs()), rtol=1e-3, atol=1e-3)


def test_lora_files_name_weights_in_the_usual_ways():
    patcher = comfy.sd.load_diffusion_model_state_dict(lumina_tensors(z_image_config()), model_options={"dtype": torch.float32})
    names = model_lora_keys_unet(patcher.model, {})
    layer = "layers.1.attention.to_k"
    target = "diffusion_model.layers.1.attention.qkv.weight", (0, 256, 256)
    for spelling in (layer, f"transformer.{layer}", f"diffusion_model.{layer}", f"lycoris_{layer.replace('.', '_')}"):
        assert names[spelling] == target
    assert names["transformer.layers.0.attention.to_out.0"] == "diffusion_model.layers.0.attention.out.weight"
    assert names["diffusion_model.layers.0.attention.qkv"] == "diffusion_model.layers.0.attention.qkv.weight"


def test_heads_that_rotations_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit rotations"):
        NextDiT(dim=256, n_heads=2, axes_dims=[32, 32, 32], operations=torch.nn)
