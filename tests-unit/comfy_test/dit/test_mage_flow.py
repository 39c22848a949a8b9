"""Mage-Flow: what its files are told by, its autoencoder, its conversations, the node that tells it of pictures."""

import pytest
import torch
from image_family_files import as_bytes, mage_config, mage_tensors, mage_vae_tensors, numbers
from qwen_tokenizer import MARKS, USER, VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors, qwen_image_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import mage_flow, qwen_image
from comfy.dit.models.mage_flow import MageFlow
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import IncompleteModelError
from comfy.images.mage_vae import read_mage_sizes
from comfy.ldm.mage_flow.vae import MageSizes, MageVAE
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy_extras.nodes_mage import TextEncodeMageFlowEdit


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "qwen3vl.safetensors"
    tensors = qwen3_vl_tensors(vocabulary=VOCABULARY, width=48)
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    return comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.MAGE)


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(sd=mage_vae_tensors())


def test_it_is_told_from_qwen_image_by_its_latents():
    tensors = {"model.diffusion_model." + name: value for name, value in mage_tensors().items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.MageFlow is MageFlow and isinstance(model.model_config, comfy.supported_models.MageFlow)
    assert family_of(model.model_config.unet_config) is mage_flow.FAMILY and model.model_type.name == "FLOW"
    assert model.model_sampling.shift == 6.0 and model.process_timestep(torch.tensor([0.3])).dtype == torch.bfloat16
    assert model_lora_keys_unet(model, {})["transformer.transformer_blocks.1.attn.to_q"].endswith("transformer_blocks.1.attn.to_q.weight")
    for tensors, own, other in ((mage_tensors(), mage_flow, qwen_image), (qwen_image_tensors(), qwen_image, mage_flow)):
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        assert own.read_config(shapes) is not None and other.read_config(shapes) is None
    assert mage_flow.read_config({"proj_out.weight": (128, 64)}) is None


def test_the_real_sizes_give_the_published_names():
    config = mage_config(width=3072, depth=12, context=2560) | {"attention_head_dim": 128, "num_attention_heads": 24}
    shapes = {name: tuple(value.shape) for name, value in network_of(config | {"axes_dims_rope": [16, 56, 56]}).named_parameters()}
    assert shapes["img_in.weight"] == (3072, 128) and shapes["transformer_blocks.11.txt_mlp.net.2.weight"] == (3072, 12288)
    assert read_transformer_config(shapes)["axes_dims_rope"] == [16, 56, 56]
    with torch.device("meta"):
        parts = {name: tuple(value.shape) for name, value in MageVAE().named_parameters()}
    named = {
        name.replace("dconv_encoder", "student.dconv_encoder").replace("decoder_model", "pipeline"): shape for name, shape in parts.items()
    }
    assert read_mage_sizes(named) == MageSizes() and named["pipeline.dec_net.cond_embed.weight"] == (8192, 384)


def test_pictures_become_latents_and_back(vae, caplog):
    assert (vae.latent_channels, vae.output_channels, vae.latent_dim, vae.spacial_compression_encode()) == (128, 3, 2, 16)
    latent = vae.encode(torch.rand(2, 48, 32, 3, generator=torch.Generator().manual_seed(1)))
    assert latent.shape == (2, 128, 3, 2) and vae.decode(latent).shape == (2, 48, 32, 3)
    network = vae.first_stage_model
    assert len({tuple(one) for one in network.decode(latent[:1]).flatten(2)[0].T.tolist()}) > 500  # pixels of a cell differ
    comfy.sd.VAE(sd=mage_vae_tensors())
    assert "not used" not in caplog.text
    incomplete = mage_vae_tensors()
    del incomplete["pipeline.final_layer.norm.weight"]
    with pytest.raises(IncompleteModelError, match="final_layer.norm.weight"):
        comfy.sd.VAE(sd=incomplete)


def test_pictures_are_numbered_in_the_conversation(clip):
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    tokens = [token[0] for token in clip.tokenize("x", images=[picture, picture])["qwen3vl_4b"][0]]
    pictures = [place for place, token in enumerate(tokens) if isinstance(token, dict)]
    assert len(pictures) == 2 and [tokens[place - 1] for place in pictures] == [MARKS["<|vision_start|>"]] * 2
    assert tokens[pictures[0] - 4 : pictures[0] - 1] != tokens[pictures[1] - 4 : pictures[1] - 1]  # their numbers
    plain = [token[0] for token in clip.tokenize("x")["qwen3vl_4b"][0]]
    states = clip.encode_from_tokens(clip.tokenize("x"))
    assert states.shape == (1, len(plain) - plain.index(USER) - 2, 48)


def test_the_node_brings_pictures_to_the_size_of_the_latent(clip, vae):
    pictures = {f"image_{number}": torch.rand(1, *size, 3) for number, size in ((2, (40, 72)), (10, (512, 256)))}
    (((told, values),), ((_, others),), latent) = TextEncodeMageFlowEdit.execute(clip, "x", "", vae, pictures, batch_size=2).result
    assert latent["samples"].shape == (2, 128, 2, 4)  # the first picture's, in whole cells
    assert [one.shape for one in values["reference_latents"]] == [(1, 128, 2, 4)] * 2 and len(others["reference_latents"]) == 2
    (((seen, without),), _, wide) = TextEncodeMageFlowEdit.execute(clip, "x", "y", None, pictures, width=100).result
    assert "reference_latents" not in without and wide["samples"].shape == (1, 128, 2, 6) and torch.equal(seen, told)
    marks = [token for token in clip.tokenize("x", images=list(pictures.values()))["qwen3vl_4b"][0] if isinstance(token[0], dict)]
    assert told.shape[1] > 2 and len(marks) == 2
    plain = TextEncodeMageFlowEdit.execute(clip, "x").result
    assert plain[2]["samples"].shape == (1, 128, 64, 64)


def test_references_change_what_is_made():
    network = network_of(mage_config())
    network.load_weights(mage_tensors())
    given = {"x": numbers(2, 128, 5, 4, seed=1), "timestep": torch.tensor([0.6, 0.6]), "context": numbers(2, 5, 48, seed=2)}
    plain = network(**given)
    assert plain.shape == given["x"].shape
    assert not torch.allclose(network(**given, ref_latents=[numbers(2, 128, 3, 4, seed=3)]), plain)
