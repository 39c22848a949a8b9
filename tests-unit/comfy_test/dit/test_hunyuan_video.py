"""HunyuanVideo 1.5: what its files are told by, its network, its hooks, what it is conditioned by, LoRA."""

import types

import pytest
import torch
from hunyuan_files import SEEN, WRITTEN, authors_name, hunyuan_config, hunyuan_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import hunyuan_video
from comfy.dit.models.hunyuan_video import HunyuanVideo15
from comfy.dit.registry import family_of
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.ldm.hunyuan_video import layers
from comfy.ldm.hunyuan_video.names import parameter_name
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = 48


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(**sizes):
    network = network_of(hunyuan_config(**sizes))
    network.load_weights(hunyuan_tensors(**sizes))
    return network


@pytest.fixture(scope="module")
def network():
    return made()


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def inputs(channels=65, size=(3, 4, 6)):
    return {"x": numbers(1, channels, *size, seed=1), "timestep": torch.tensor([600.0]), "context": numbers(1, 5, CONTEXT, seed=2)}


def loaded(**sizes):
    tensors = {"model.model." + key: value for key, value in hunyuan_tensors(**sizes).items()}
    return comfy.sd.load_diffusion_model_state_dict(
        {key.removeprefix("model.model."): value for key, value in tensors.items()}, model_options={"dtype": torch.float32}
    )


@pytest.mark.parametrize(("channels", "name", "shift"), [(65, "HunyuanVideo15", 7.0), (98, "HunyuanVideo15_SR_Distilled", 2.0)])
def test_networks_are_told_by_their_tensors(channels, name, shift):
    model = loaded(channels=channels).model
    assert type(model) is getattr(comfy.model_base, name) and type(model.model_config) is getattr(comfy.supported_models, name)
    assert family_of(model.model_config.unet_config) is hunyuan_video.FAMILY and model.model_sampling.shift == shift
    assert isinstance(model.latent_format, comfy.latent_formats.HunyuanVideo15) and model.latent_format.latent_channels == 32
    assert len(model.latent_format.latent_rgb_factors) == 32


def test_the_real_sizes_give_the_authors_names():
    network = network_of(hunyuan_config(width=2048, depth=54, context=3584))
    shapes = {authors_name(name): tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["double_blocks.53.img_attn_qkv.weight"] == (6144, 2048) and shapes["txt_in.t_embedder.mlp.0.weight"] == (2048, 256)
    assert shapes["double_blocks.0.txt_attn_q_norm.weight"] == (128,) and shapes["time_in.mlp.2.bias"] == (2048,)
    config = hunyuan_video.read_config(shapes)
    assert config["num_heads"] == 16 and config["depth"] == 54 and config["context_in_dim"] == 3584
    assert all(authors_name(parameter_name(name)) == name for name in shapes)


def test_hunyuans_other_networks_are_refused():
    shapes = {name: tuple(value.shape) for name, value in hunyuan_tensors().items()}
    for other in ({"vector_in.in_layer.weight": (128, 768)}, {"single_blocks.0.linear1.weight": (1, 1)}):
        with pytest.raises(UnknownModelError, match=r"HunyuanVideo 1\.5"):
            hunyuan_video.read_config({**shapes, **other})
    with pytest.raises(ModelFileError, match="multiple of 128"):
        hunyuan_video.read_config({**shapes, "img_in.proj.weight": (100, 65, 1, 1, 1)})
    mark = hunyuan_video.MARK
    assert hunyuan_video.read_config({key: shape for key, shape in shapes.items() if key != mark}) is None
    flat = {"img_in.proj.weight": (128, 64, 2, 2), "vector_in.in_layer.weight": (128, 768), "single_blocks.0.linear1.weight": (1, 1)}
    others = {name: shape for name, shape in shapes.items() if not name.startswith("vision_in.")} | flat
    assert hunyuan_video.read_first_config(others) is None  # of pictures: its patches have no frames


def in_diffusers_names(**sizes):
    """A small network as diffusers saves it."""
    own = {parameter_name(key): value for key, value in hunyuan_tensors(**sizes).items()}
    found = {}
    for name, place in hunyuan_video.diffusers_places({"width": 128, "blocks": 2, "refiner_blocks": 2}).items():
        if place.key in own:
            value = own[place.key]
            value = torch.cat(value.chunk(2)[::-1]) if place.swapped else value
            found[name] = (value[place.start : place.start + place.length] if place.length else value).clone()
    return found


def test_it_computes_what_diffusers_computes():
    from diffusers import HunyuanVideo15Transformer3DModel

    sizes = {"in_channels": 65, "out_channels": 32, "num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 2}
    widths = {"text_embed_dim": CONTEXT, "text_embed_2_dim": WRITTEN, "image_embed_dim": SEEN}
    twin = HunyuanVideo15Transformer3DModel(**sizes, **widths, num_refiner_layers=2, patch_size=1, patch_size_t=1).eval()
    twin.load_state_dict(in_diffusers_names())
    given, written, seen = inputs(), numbers(1, 3, WRITTEN, seed=3), numbers(1, 4, SEEN, seed=4)
    texts = {"encoder_hidden_states_2": written, "encoder_attention_mask_2": torch.ones(1, 3), "image_embeds": seen}
    expected = twin(given["x"], given["timestep"], given["context"], torch.ones(1, 5), **texts, return_dict=False)[0]
    torch.testing.assert_close(made()(**given, txt_byt5=written, clip_fea=seen), expected, rtol=1e-3, atol=3e-4)


def test_diffusers_files_are_the_same_model():
    model = comfy.sd.load_diffusion_model_state_dict(in_diffusers_names(), model_options={"dtype": torch.float32}).model
    own = {parameter_name(key): value for key, value in hunyuan_tensors().items()}
    assert type(model) is HunyuanVideo15
    assert all(torch.equal(value, own[name]) for name, value in model.diffusion_model.named_parameters())


def test_what_is_written_and_seen_counts_only_where_it_is_given(network):
    plain = network(**inputs())
    written, seen = network(**inputs(), txt_byt5=numbers(1, 3, WRITTEN)), network(**inputs(), clip_fea=numbers(1, 4, SEEN))
    results = [plain, written, seen, network(**inputs(), txt_byt5=numbers(1, 3, WRITTEN), clip_fea=numbers(1, 4, SEEN))]
    assert not any(torch.allclose(one, other, rtol=1e-3) for number, one in enumerate(results) for other in results[:number])


def test_masked_text_changes_nothing_in_the_blocks(network):
    given = inputs()
    longer = {**given, "context": torch.cat([given["context"], numbers(1, 3, CONTEXT, seed=8)], dim=1)}
    mask = torch.tensor([[1] * 5 + [0] * 3])
    once, again = network(**longer, attention_mask=mask), network(**longer, attention_mask=(mask - 1.0) * 1e30)
    torch.testing.assert_close(once, again, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(once, network(**longer), rtol=1e-2)


def test_a_network_between_times_looks_at_the_next_step():
    network = made(meanflow=True)
    sigmas = torch.tensor([1.0, 0.6, 0.0])
    at = {"sigmas": torch.tensor([0.6]), "sample_sigmas": sigmas}
    told = network(**inputs(), transformer_options=dict(at))
    assert not torch.allclose(told, network(**inputs()), rtol=1e-2)
    assert torch.equal(network(**inputs(), transformer_options=dict(at), disable_time_r=True), network(**inputs()))
    other = network(**inputs(), transformer_options={**at, "sigmas": torch.tensor([0.5])})
    assert torch.equal(other, network(**inputs()))


def test_a_replacement_of_a_block_sees_its_arguments_and_the_original(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    replaced = network(**inputs(), transformer_options={"patches_replace": {"dit": {("double_block", 1): replacement}}})
    assert torch.equal(network(**inputs()), replaced)
    names = ["attention_mask", "img", "modulation_dims_img", "modulation_dims_txt", "pe", "transformer_options", "txt", "vec"]
    assert seen == [(names, 1)]


def test_residuals_of_a_control_net_are_added(network):
    controlled = network(**inputs(), control={"input": [None, torch.ones(1, 72, 128)]})
    assert not torch.allclose(controlled, network(**inputs())) and torch.equal(network(**inputs(), control={}), network(**inputs()))


def conds(model, **given):
    noise = numbers(1, 32, 3, 4, 6, seed=1)
    return model.extra_conds(noise=noise, device=torch.device("cpu"), cross_attn=numbers(1, 5, CONTEXT), **given)


def test_a_picture_and_its_mask_become_channels():
    model = loaded().model
    picture, mask = numbers(1, 32, 3, 8, 12), torch.ones(1, 1, 2, 8, 12)
    mask[:, :, 0] = 0.0
    found = conds(model, concat_latent_image=picture, concat_mask=mask)["c_concat"].cond
    assert found.shape == (1, 33, 3, 4, 6) and found[:, 32].mean(dim=(0, 2, 3)).tolist() == [1.0, 0.0, 0.0]
    assert conds(model)["c_concat"].cond.count_nonzero() == 0
    assert conds(model, denoise_mask=mask.expand(-1, 32, -1, -1, -1))["c_concat"].cond.shape == (1, 33, 3, 4, 6)
    latent = numbers(1, 32, 3, 4, 6)
    assert model.scale_latent_inpaint(torch.tensor([0.7]), noise=latent * 2, latent_image=latent) is latent


def test_conditioning_is_what_the_network_takes():
    model = loaded().model
    seen, ones = types.SimpleNamespace(last_hidden_state=numbers(1, 9, SEEN)), torch.ones(1, 5)
    found = conds(model, clip_vision_output=seen, conditioning_byt5small=numbers(1, 3, WRITTEN), attention_mask=ones)
    assert found.keys() >= {"c_crossattn", "clip_fea", "txt_byt5", "guidance"} and "attention_mask" not in found
    assert "attention_mask" in conds(model, attention_mask=torch.tensor([[1, 1, 0, 0, 0]]))
    with pytest.raises(ValueError, match=r"takes texts encoded to 48 .* has 40"):
        model.extra_conds(noise=numbers(1, 32, 1, 4, 4), device=torch.device("cpu"), cross_attn=numbers(1, 5, 40))


def test_noise_is_added_to_an_enlarged_video_alone():
    model = loaded(channels=98).model
    joined = numbers(1, 66, 3, 4, 6)
    found = conds(model, concat_latent_image=joined, noise_augmentation=0.0, seed=3)["c_concat"].cond
    torch.testing.assert_close(found[:, 33:65], joined[:, 33:65] * 0.75)
    assert torch.equal(found[:, :33], joined[:, :33]) and torch.equal(found[:, 65:], joined[:, 65:])
    noisy = [conds(model, concat_latent_image=joined, noise_augmentation=0.7, seed=seed)["c_concat"].cond for seed in (3, 3, 4)]
    assert torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], noisy[2]) and torch.equal(noisy[0][:, :33], joined[:, :33])
    assert conds(model)["c_concat"].cond.shape == (1, 66, 3, 4, 6)


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded().model, {})
    weight = "diffusion_model.double_blocks.1.img_attn.qkv.weight"
    spellings = ("transformer.double_blocks.1.img_attn_qkv", "diffusion_model.double_blocks.1.img_attn_qkv")
    own = "double_blocks.1.img_attn.qkv"
    assert {names[spelling] for spelling in (*spellings, f"diffusion_model.{own}", f"lora_unet_{own.replace('.', '_')}")} == {weight}


def test_what_byt5_made_is_mapped():
    mapper = layers.ByT5Mapper(8, 6, 4, 8, use_res=True, operations=torch.nn)
    x = numbers(1, 3, 8)
    mapper.use_res = False
    plain = mapper(x)
    mapper.use_res = True
    torch.testing.assert_close(mapper(x), plain + x)
