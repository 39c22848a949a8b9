"""Chroma, LongCat-Image and Ovis-Image: what their files are told by, Chroma against diffusers, their conditioning and text encoders."""

import pytest
import torch
from image_family_files import as_bytes, chroma_config, chroma_tensors, flux_relative_config, numbers
from qwen_tokenizer import MARKS, USER, VOCABULARY, qwen_tokenizer_json
from transformer_files import flux_file_name, network_of, qwen_text_tensors, random_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import chroma, flux
from comfy.dit.registry import family_of, read_transformer_config
from comfy.ldm.chroma import layers
from comfy.ldm.chroma.model import Chroma
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.text.kinds import read_qwen_config
from comfy.text_encoders import longcat_image, ovis

FP32 = {"dtype": torch.float32}
CPU = torch.device("cpu")
DATA = {"tokenizer_json": as_bytes(qwen_tokenizer_json())}


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options=FP32)


def test_chroma_is_told_by_the_network_that_modulates():
    model = loaded({"model.diffusion_model." + name: value for name, value in chroma_tensors().items()}).model
    assert type(model) is comfy.model_base.Chroma and isinstance(model.model_config, comfy.supported_models.Chroma)
    assert family_of(model.model_config.unet_config) is chroma.FAMILY and model.model_type.name == "FLUX"
    assert type(model.diffusion_model) is Chroma
    names = dict(model.diffusion_model.named_parameters())
    assert "distilled_guidance_layer.norms.1.weight" in names
    assert not [name for name in names if "time_in" in name or "modulation" in name or "_mod." in name]
    shapes = {name: tuple(value.shape) for name, value in names.items()}
    assert chroma.read_config({**shapes, "nerf_blocks.0.norm.scale": (64,)}) is None


def test_the_real_sizes_of_chroma_give_the_published_names():
    network = network_of(chroma_config(width=3072, depth=19, single=38, context=4096, inner=5120))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(value.numel() for value in network.parameters()) > 8_000_000_000
    assert 3 * 38 + 12 * 19 + 2 == 344 and shapes["single_blocks.37.linear1.weight"] == (21504, 3072)
    assert read_transformer_config(shapes)["num_heads"] == 24


def test_chroma_computes_what_diffusers_computes_from_a_file_in_its_names():
    from diffusers import ChromaTransformer2DModel

    twin = ChromaTransformer2DModel(
        num_layers=19,
        num_single_layers=38,
        num_attention_heads=1,
        joint_attention_dim=48,
        approximator_hidden_dim=32,
        approximator_layers=1,
    ).eval()  # its numbers of blocks make the published number of modulations
    model = loaded(twin.state_dict()).model
    x, context, time = numbers(1, 16, 4, 6, seed=1), numbers(1, 5, 48, seed=2), torch.tensor([0.6])
    tokens, places = model.diffusion_model.process_img(x)
    output = twin(tokens, context, time, places[0], torch.zeros(5, 3), return_dict=False)[0]
    found = model.diffusion_model(x, time, context, guidance=torch.zeros(1))
    patches, _ = model.diffusion_model.process_img(found)
    torch.testing.assert_close(patches, output, rtol=1e-3, atol=2e-4)


def test_chromas_modulations_lie_behind_each_other():
    network = network_of(chroma_config())
    rows = torch.arange(344.0).reshape(1, 344, 1)
    single = network.get_modulations(rows, "single", idx=1)
    assert [single.shift.item(), single.scale.item(), single.gate.item()] == [3, 4, 5]
    (first, second), (text, _) = (network.get_modulations(rows, f"double_{stream}", idx=1) for stream in ("img", "txt"))
    assert first.shift.item() == 12 and second.gate.item() == 17 and text.shift.item() == 24
    assert [value.item() for value in network.get_modulations(rows, "final")] == [342, 343]
    last = layers.LastLayer(4, 1, 4, operations=torch.nn)
    vec, x = numbers(1, 6, 4), numbers(1, 3, 4)
    assert torch.equal(last(x, vec), last(x, (vec[:, -2:-1], vec[:, -1:])))


def test_chroma_takes_no_guidance_as_nought_and_no_pictures():
    model = loaded(chroma_tensors()).model
    latent = numbers(1, 16, 4, 4)
    given = {"noise": latent, "device": CPU, "cross_attn": numbers(1, 5, 48), "reference_latents": [latent], "pooled_output": numbers(1, 8)}
    conds = model.extra_conds(**given)
    assert conds["guidance"].cond.item() == 0 and not conds.keys() & {"ref_latents", "y", "c_concat"}
    names = model_lora_keys_unet(model, {})
    assert names["transformer.single_transformer_blocks.1.proj_mlp"][1] == (0, 768, 1024)


@pytest.mark.parametrize("kind", ["longcat", "ovis"])
def test_relatives_of_flux_lay_their_text_in_a_row(kind):
    config = flux_relative_config(kind)
    model = loaded(random_tensors(config, file_name=flux_file_name)).model
    assert config["txt_ids_dims"] == [1, 2] and family_of(config) is flux.FAMILY and model.latent_format.latent_channels == 16
    network = model.diffusion_model
    wanted = "LongCatImage" if kind == "longcat" else "FluxSchnell"
    assert type(model.model_config).__name__ == wanted and network.vector_in is None
    assert (network.txt_norm is not None) is hasattr(network.double_blocks[0].img_mlp, "gate_proj") is (kind == "ovis")
    out = network(numbers(1, 16, 4, 6), torch.tensor([0.5]), numbers(1, 5, config["context_in_dim"]))
    assert out.shape == (1, 16, 4, 6)


def test_longcats_pictures_stand_behind_the_text():
    model = loaded(random_tensors(flux_relative_config("longcat"), file_name=flux_file_name)).model
    seen = []
    model.diffusion_model.forward = lambda x, *args, transformer_options, **kwargs: seen.append(transformer_options) or x
    latent, text = numbers(1, 16, 4, 4), numbers(1, 9, 3584)
    model.apply_model(latent, torch.tensor([0.5]), c_crossattn=text, transformer_options={"rope_options": {"shift_t": 2.0}})
    assert seen[0]["rope_options"] == {"shift_t": 2.0, "shift_y": 9.0, "shift_x": 9.0}
    conds = model.extra_conds(noise=latent, device=CPU, cross_attn=text, guidance=3.0, pooled_output=numbers(1, 8))
    assert not conds.keys() & {"guidance", "y"}


def test_what_stands_in_quotation_marks_is_spelled():
    assert longcat_image.split_quotation("it's a \"red 'x'\" and ‘y’ don't") == [
        ("it's a ", False),
        ("\"red 'x'\"", True),
        (" and ", False),
        ("‘y’", True),
        (" don't", False),
    ]
    assert longcat_image.split_quotation("it's a 'b' c") == [("it's a ", False), ("'b'", True), (" c", False)]
    tokenizer = longcat_image.LongCatImageTokenizer(tokenizer_data=DATA)
    ids = [token for token, _ in tokenizer.tokenize_with_weights('user "user"')["qwen25_7b"][0]]
    assert ids.count(USER) == 2  # the role and the first word; the quoted one is spelled
    begins = len(tokenizer.qwen25_7b.ids(longcat_image.ABOUT_TEXT))
    assert ids[begins] == USER and len(ids) == begins + 512 + len(tokenizer.qwen25_7b.ids(longcat_image.AFTER))
    long = tokenizer.tokenize_with_weights("x" * 600)["qwen25_7b"][0]
    assert len(long) == len(ids) and (151643, 1.0) not in long
    picture = torch.rand(1, 56, 56, 3)
    with_picture = tokenizer.tokenize_with_weights("x", images=[picture])["qwen25_7b"][0]
    assert [token["data"] is picture for token, _ in with_picture if isinstance(token, dict)] == [True]
    assert tokenizer.tokenize_with_weights("<|im_start|>x")["qwen25_7b"][0][0] == (MARKS["<|im_start|>"], 1.0)


def test_longcats_states_are_those_of_the_users_words():
    tensors = qwen_text_tensors(vocabulary=VOCABULARY, width=32)
    config = read_qwen_config({name: tuple(value.shape) for name, value in tensors.items()})
    model = longcat_image.te()(model_options={"qwen25_7b_model_config": config})
    model.load_sd(tensors)
    tokens = longcat_image.LongCatImageTokenizer(tokenizer_data=DATA).tokenize_with_weights("a user")
    states, _, extra = model.encode_token_weights(tokens)
    assert states.shape == (1, 512, 32) and extra["attention_mask"].sum() == 3
    plain, *_ = model.encode_token_weights({"qwen25_7b": [[(5, 1.0), (6, 1.0)]]})
    assert plain.shape == (1, 2, 32)


def test_ovis_states_begin_behind_its_template():
    tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=VOCABULARY, width=2048, layers=1)
    config = read_qwen_config({name: tuple(value.shape) for name, value in tensors.items()})
    model = ovis.te()(model_options={"qwen3_2b_model_config": config})
    model.load_sd(tensors)
    chunk = [(7, 1.0), (ovis.BACKGROUND, 1.0), (ovis.COLON, 1.0), (9, 1.0), (151643, 1.0)]
    states, pooled, extra = model.encode_token_weights({"qwen3_2b": [chunk]})
    assert states.shape == (1, 3, 2048) and not states[0, 2].any() and states[0, 1].any() and extra == {}
    assert model.encode_token_weights({"qwen3_2b": [[(7, 1.0), (9, 1.0)]]})[0].shape == (1, 1, 2048)
    tokens = ovis.OvisTokenizer(tokenizer_data=DATA).tokenize_with_weights("(x:2)")["qwen3_2b"][0]
    assert len(tokens) == 284 and tokens[-1] == (151643, 1.0)
