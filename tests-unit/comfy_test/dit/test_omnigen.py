"""OmniGen2 and Boogu: what their files are told by, their conversations, pictures to look at, the node."""

import pytest
import torch
from image_family_files import as_bytes, numbers, omnigen_config, omnigen_tensors, vae_tensors
from qwen_tokenizer import MARKS, VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors, qwen_text_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import omnigen
from comfy.dit.models.omnigen import Boogu, Omnigen2
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.kl_vae_config import KlVaeConfig
from comfy.families.model_errors import ModelFileError
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy_extras.nodes_boogu import TextEncodeBooguEdit


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(folder, tensors, kind):
    path = folder / "text.safetensors"
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    return comfy.sd.load_clip([str(path)], clip_type=getattr(comfy.sd.CLIPType, kind))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("boogu"), qwen3_vl_tensors(large=True, vocabulary=VOCABULARY, width=48), "BOOGU")


def ids(tokens):
    ((chunk,),) = tokens.values()
    return [one[0] for one in chunk]


@pytest.mark.parametrize(
    ("sizes", "config", "model_class", "shift"),
    [
        ({}, comfy.supported_models.Omnigen2, comfy.model_base.Omnigen2, 2.6),
        ({"double": 1}, comfy.supported_models.Boogu, comfy.model_base.Boogu, 3.16),
    ],
)
def test_files_are_told_apart(sizes, config, model_class, shift):
    tensors = {"model.diffusion_model." + name: value for name, value in omnigen_tensors(**sizes).items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is model_class in (Omnigen2, Boogu) and type(model.model_config) is config
    assert family_of(model.model_config.unet_config) is omnigen.FAMILY and model.model_type.name == "FLOW"
    assert (model.model_sampling.shift, model.context_width(), model.latent_format.latent_channels) == (shift, 48, 16)
    stack = "single_stream_layers" if sizes else "layers"
    keys = model_lora_keys_unet(model, {})
    assert keys[f"transformer.{stack}.1.attn.to_q"] == f"diffusion_model.{stack}.1.attn.to_q.weight"


def test_the_real_sizes_give_the_published_names():
    small = {"width": 2520, "context": 2048, "depth": 32}
    network = network_of(omnigen_config(**small) | {"num_attention_heads": 21, "num_kv_heads": 7})
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["layers.31.attn.to_k.weight"] == (840, 2520) and shapes["layers.0.feed_forward.linear_1.weight"] == (10240, 2520)
    assert shapes["time_caption_embed.timestep_embedder.linear_2.weight"] == (1024, 1024)
    assert shapes["layers.0.norm1.linear.weight"] == (10080, 1024) and shapes["context_refiner.0.norm1.weight"] == (2520,)
    head = shapes | {"noise_refiner.0.attn.norm_q.weight": (120,)}
    config = read_transformer_config(head)
    heads = config["num_attention_heads"], config["num_kv_heads"]
    assert (heads, config["axes_dim_rope"], config["num_layers"]) == ((21, 7), [40, 40, 40], 32)
    assert omnigen.read_config({"x_embedder.weight": (96, 64)}) is None
    with pytest.raises(ModelFileError, match="heads of 100 values"):
        read_transformer_config(shapes | {"noise_refiner.0.attn.norm_q.weight": (100,)})


@pytest.mark.parametrize("sizes", [{}, {"double": 2}])
def test_pictures_and_what_the_text_may_look_at_change_what_is_made(sizes):
    network = network_of(omnigen_config(**sizes))
    network.load_weights(omnigen_tensors(**sizes))
    given = {"x": numbers(2, 16, 7, 6, seed=1), "timesteps": torch.tensor([0.6, 0.6]), "context": numbers(2, 5, 48, seed=2)}
    plain = network(**given)
    assert plain.shape == given["x"].shape
    seen = numbers(2, 16, 4, 5, seed=3)
    for more in ({"ref_latents": [seen]}, {"attention_mask": torch.tensor([[1, 1, 1, 0, 0]] * 2)}):
        assert not torch.allclose(network(**given, **more), plain)
    twice = network(**given, ref_latents=[seen, seen])
    assert not torch.allclose(twice, network(**given, ref_latents=[seen]))
    with pytest.raises(ValueError, match="5 pictures at most, but 6"):
        network(**given, ref_latents=[seen] * 6)


def test_the_text_is_as_long_as_it_is_and_pictures_are_latents():
    tensors = omnigen_tensors()
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    mask = torch.tensor([[1, 1, 0]])
    latent = numbers(1, 16, 4, 6)
    given = {"cross_attn": numbers(1, 3, 48), "noise": latent, "device": torch.device("cpu"), "reference_latents": [latent]}
    conds = model.extra_conds(**given, attention_mask=mask)
    assert conds["num_tokens"].cond == 2 and torch.equal(conds["attention_mask"].cond, mask)
    assert torch.equal(conds["ref_latents"].cond[0], model.process_latent_in(latent))
    conds = model.extra_conds(**given, attention_mask=torch.ones(1, 3))
    assert conds["num_tokens"].cond == 3 and "attention_mask" not in conds
    assert model.extra_conds_shapes(**given) == {"ref_latents": [1, 16, 24]} and model.extra_conds_shapes() == {}


def test_omnigens_text_is_in_its_conversation(tmp_path):
    clip = loaded(tmp_path, qwen_text_tensors(vocabulary=VOCABULARY, width=48, keys=2), "OMNIGEN2")
    tokens = clip.tokenize("x (y:1.5)")
    found = ids(tokens)
    assert list(tokens) == ["qwen25_3b"] and found.count(MARKS["<|im_start|>"]) == found.count(MARKS["<|im_end|>"]) == 2
    assert {weight for _, weight in tokens["qwen25_3b"][0]} == {1.0, 1.5}
    states, values = clip.encode_from_tokens_scheduled(tokens)[0]
    assert states.shape == (1, len(found), 48) and values["attention_mask"].tolist() == [[1] * len(found)]


def test_boogus_conversation_says_what_is_to_be_done(clip):
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    draw, change, nothing = (ids(clip.tokenize(text, images=images)) for text, images in (("x", []), ("x", [picture]), ("", [])))
    asked = draw.index(MARKS["<|im_end|>"])
    assert change[: change.index(MARKS["<|im_end|>"])] == nothing[: nothing.index(MARKS["<|im_end|>"])] != draw[:asked]
    assert sum(isinstance(token, dict) for token in change) == 1 and change[-len(draw[-4:]) :][-1] == draw[-1]
    assert clip.encode_from_tokens(clip.tokenize("x")).shape == (1, len(draw), 48)


def test_the_node_shows_pictures_for_the_instruction_alone(clip):
    vae = comfy.sd.VAE(sd=vae_tensors(KlVaeConfig(3, 16, (32, 32, 64, 64), 1, False)))
    pictures = {f"image_{number}": torch.rand(1, *size, 3) for number, size in ((2, (40, 72)), (10, (64, 48)))}
    ((told, values),), ((plain, others),) = TextEncodeBooguEdit.execute(clip, "x", "", vae, pictures).result
    assert [tuple(one.shape[2:]) for one in values["reference_latents"]] == [(96, 172), (148, 110)]
    assert len(others["reference_latents"]) == 2 and told.shape[1] > plain.shape[1]
    ((told, values),), _ = TextEncodeBooguEdit.execute(clip, "x", "").result
    assert "reference_latents" not in values and torch.equal(told, clip.encode_from_tokens(clip.tokenize("x")))
