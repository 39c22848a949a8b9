"""Qwen-Image: what its files are told by, its network against diffusers' own, its hooks, pictures to look at, quantised files, LoRA."""

import pytest
import torch
from quantised_files import KINDS, quantised, settings_for, text
from transformer_files import network_of, qwen_image_config, qwen_image_tensors

import comfy.conds
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import qwen_image
from comfy.dit.models.qwen_image import QwenImage
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import ModelFileError
from comfy.ldm.qwen_image import layers
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.qwen_image.reference_places import ReferencePlaces
from comfy.loading.lora_keys import model_lora_keys_unet


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(**sizes):
    network = network_of(qwen_image_config(**sizes))
    network.load_weights(qwen_image_tensors(**sizes))
    return network


@pytest.fixture(scope="module")
def network():
    return made()


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def inputs(size=(6, 8), frames=1):
    return {"x": numbers(1, 16, frames, *size, seed=1), "timestep": torch.tensor([0.6]), "context": numbers(1, 5, 48, seed=2)}


@pytest.mark.parametrize(
    ("sizes", "method", "layered"),
    [({}, "index", False), ({"at_time_zero": True}, "index_timestep_zero", False), ({"layered": True}, "negative_index", True)],
)
def test_variants_are_told_by_their_tensors(sizes, method, layered):
    tensors = {"model.diffusion_model." + key: value for key, value in qwen_image_tensors(**sizes).items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.QwenImage is QwenImage and isinstance(model.model_config, comfy.supported_models.QwenImage)
    assert family_of(model.model_config.unet_config) is qwen_image.FAMILY and model.model_type.name == "FLUX"
    assert model.latent_format.latent_dimensions == 3 and model.model_sampling.shift == 1.15
    assert model.diffusion_model.default_ref_method == method
    assert model.diffusion_model.time_text_embed.use_additional_t_cond is layered
    assert ("__index_timestep_zero__" in model.diffusion_model.state_dict()) is (method == "index_timestep_zero")


def test_the_real_sizes_give_the_published_names():
    network = network_of(qwen_image_config(width=3072, depth=60, context=3584) | {"attention_head_dim": 128, "num_attention_heads": 24})
    assert sum(value.numel() for value in network.parameters()) > 20_000_000_000
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["transformer_blocks.59.attn.add_k_proj.weight"] == (3072, 3072) and shapes["txt_norm.weight"] == (3584,)
    assert shapes["transformer_blocks.0.img_mlp.net.0.proj.weight"] == (12288, 3072) and shapes["norm_out.linear.weight"] == (6144, 3072)
    assert list(network.patch_blocks())[-1] == ("double_block", 59)
    real = read_transformer_config({**shapes, "transformer_blocks.0.attn.norm_added_q.weight": (128,)})
    assert real["axes_dims_rope"] == [16, 56, 56] and real["num_attention_heads"] == 24 and real["num_layers"] == 60


def test_relatives_are_no_qwen_image_and_odd_heads_are_refused():
    shapes = {name: tuple(value.shape) for name, value in qwen_image_tensors().items()}
    assert qwen_image.read_config({**shapes, "proj_out.weight": (128, 64)}) is None
    assert qwen_image.read_config({key: shape for key, shape in shapes.items() if key != "txt_norm.weight"}) is None
    with pytest.raises(ModelFileError, match="multiple of 32"):
        qwen_image.read_config({**shapes, "transformer_blocks.0.attn.norm_added_q.weight": (40,)})


def test_it_computes_what_diffusers_computes(network):
    from diffusers import QwenImageTransformer2DModel as Twin

    sizes = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32, "joint_attention_dim": 48, "axes_dims_rope": (4, 14, 14)}
    twin = Twin(**sizes).eval()
    twin.load_state_dict(qwen_image_tensors())
    given = inputs((8, 8))
    tokens, _, padded = network.process_img(given["x"])
    mask = torch.ones(1, 5, dtype=torch.bool)
    output = twin(tokens, given["context"], mask, given["timestep"], img_shapes=[[(1, 4, 4)]], return_dict=False)[0]
    torch.testing.assert_close(network(**given), network._as_latent(output, padded), rtol=1e-3, atol=2e-4)


def test_odd_sides_are_padded_and_cut_again(network):
    assert network(**inputs((7, 5))).shape == (1, 16, 1, 7, 5)
    assert network(**inputs((6, 4), frames=3)).shape == (1, 16, 3, 6, 4)


def test_masked_text_changes_nothing(network):
    given = inputs()
    longer = {**given, "context": torch.cat([given["context"], numbers(1, 3, 48, seed=8)], dim=1)}
    masked = network(**longer, attention_mask=torch.tensor([[1] * 5 + [0] * 3]))
    torch.testing.assert_close(masked, network(**given), rtol=1e-4, atol=1e-5)


def test_a_picture_to_look_at_changes_the_result_by_where_it_stands(network):
    references = [numbers(1, 16, 1, 4, 6, seed=5), numbers(1, 16, 1, 6, 4, seed=6)]
    results = [
        network(**inputs(), ref_latents=references, ref_latents_method=method)
        for method in ("index", "negative_index", "offset", "index_timestep_zero")
    ]
    results.append(network(**inputs()))
    assert all(result.shape == (1, 16, 1, 6, 8) for result in results)
    assert not any(torch.allclose(one, other) for number, one in enumerate(results) for other in results[:number])


def test_places_of_references():
    latents = [torch.zeros(1, 16, 1, *size) for size in ((8, 4), (4, 8), (4, 4))]

    def places(method):
        stand = ReferencePlaces(method)
        return [stand.next(latent) for latent in latents]

    assert places("index") == places("index_timestep_zero") == [(1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert places("negative_index") == [(-1, 0, 0), (-2, 0, 0), (-3, 0, 0)]
    assert places("offset") == [(1, 0, 0), (1, 8, 0), (1, 0, 8)]


def test_a_replacement_of_a_block_sees_its_arguments_and_the_original(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_type"], args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): replacement}}})
    assert torch.equal(network(**inputs()), replaced)
    assert seen == [(["img", "pe", "transformer_options", "txt", "vec"], "double", 1)]


def test_patches_are_called_where_comfyui_calls_them(network):
    calls = []

    def attention(q, k, v, pe, attn_mask, extra_options):
        calls.append((extra_options["block_index"], extra_options["img_slice"], tuple(q.shape)))
        return {"q": q * 0.5}

    def after(args):
        calls.append(("after", args["block_index"], tuple(args["x"].shape)))
        return {"img": args["img"] * 2, "txt": args["txt"]}

    def first(args):
        return {"img": args["img"], "txt": args["txt"] * 0, "img_ids": args["img_ids"], "txt_ids": args["txt_ids"]}

    patches = {"attn1_patch": [attention], "double_block": [after], "post_input": [first]}
    patched = network(**inputs(), transformer_options={"patches": patches})
    shapes = (1, 2, 17, 32), (1, 16, 1, 6, 8)
    assert calls == [call for number in (0, 1) for call in ((number, [5, 17], shapes[0]), ("after", number, shapes[1]))]
    assert not torch.allclose(patched, network(**inputs()))


def test_residuals_of_a_control_net_are_added_to_the_pictures_tokens(network):
    controlled = network(**inputs(), control={"input": [None, torch.ones(1, 12, 64)]})
    assert not torch.allclose(controlled, network(**inputs()))
    assert torch.equal(network(**inputs(), control={"input": []}), network(**inputs()))


def test_tokens_at_time_zero_are_modulated_by_the_second_half():
    block = layers.QwenImageTransformerBlock(8, 1, 8, operations=torch.nn)
    x, parameters = numbers(2, 3, 8, seed=1), numbers(4, 24, seed=2)
    modulated, gates = block._modulate(x, parameters, 2)
    for rows, tokens, gate in ((parameters[:2], slice(0, 2), gates[0]), (parameters[2:], slice(2, 3), gates[1])):
        expected, alone = block._modulate(x[:, tokens], rows)
        assert torch.equal(modulated[:, tokens], expected) and torch.equal(gate, alone[0])


INPUTS_IN_8_BITS = ("int8", "w4a8")  # of products, so results are as far from those of dequantised weights


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_files_stay_quantised(kind):
    tensors, values = {}, {}
    for name, value in qwen_image_tensors().items():
        if name.startswith("transformer_blocks.") and value.ndim == 2:
            parts, meant = quantised(kind, value)
            layer = name.removesuffix("weight")
            tensors |= {layer + suffix: part for suffix, part in parts.items()} | {layer + "comfy_quant": text(settings_for(kind))}
            values[name] = meant
        else:
            tensors[name] = values[name] = value
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model.diffusion_model
    assert model.transformer_blocks[0].attn.to_q.quantised is not None
    plain = network_of(qwen_image_config())
    plain.load_weights(values)
    found, expected = model(**inputs()), plain(**inputs())
    assert ((found - expected).norm() / expected.norm()).item() < (0.05 if kind.startswith(INPUTS_IN_8_BITS) else 1e-3)


def test_lora_files_name_weights_in_the_usual_ways():
    patcher = comfy.sd.load_diffusion_model_state_dict(qwen_image_tensors(), model_options={"dtype": torch.float32})
    names = model_lora_keys_unet(patcher.model, {})
    layer, weight = "transformer_blocks.1.attn.to_out.0", "diffusion_model.transformer_blocks.1.attn.to_out.0.weight"
    spellings = (layer, f"transformer.{layer}", f"diffusion_model.{layer}", f"lycoris_{layer.replace('.', '_')}")
    assert {names[spelling] for spelling in (*spellings, f"lora_unet_{layer.replace('.', '_')}")} == {weight}


def test_conditioning_is_what_the_network_takes():
    model = comfy.sd.load_diffusion_model_state_dict(qwen_image_tensors(), model_options={"dtype": torch.float32}).model
    latent, mask = numbers(1, 16, 1, 4, 4), torch.ones(1, 5)
    given = {"cross_attn": numbers(1, 5, 48), "attention_mask": mask, "noise": latent, "device": torch.device("cpu")}
    conds = model.extra_conds(**given, reference_latents=[latent], reference_latents_method="offset")
    assert conds.keys() >= {"c_crossattn", "attention_mask", "ref_latents", "ref_latents_method"}
    assert isinstance(conds["ref_latents"], comfy.conds.CONDList)
    assert torch.equal(conds["ref_latents"].cond[0], model.process_latent_in(latent))
    assert model.extra_conds_shapes(reference_latents=[latent]) == {"ref_latents": [1, 16, 16]} and model.extra_conds_shapes() == {}
    with pytest.raises(ValueError, match=r"the state dict takes texts encoded to 48 .* has 40"):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 5, 40)})


def test_the_network_has_comfyuis_arguments():
    with pytest.raises(TypeError):
        QwenImageTransformer2DModel(unknown=1)
