"""CLIP's image encoder: loading it in both styles of names, encoding, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

import comfy.clip_vision
from comfy.families.clip_vision_encoder import clip_vision_part, read_clip_vision_config
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.image_encoders.siglip import read_siglip_config

SIZES = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(4)
    config = CLIPVisionConfig(**SIZES, projection_dim=48, hidden_act="quick_gelu", attn_implementation="eager")
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False).half().float()  # values that the kept dtype holds


@pytest.fixture(scope="module")
def weights(reference):
    return {key: value.clone() for key, value in reference.state_dict().items() if not key.endswith("position_ids")}


def open_clip(weights: dict) -> dict:
    """The same tensors as open_clip names them."""
    renames = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.pre_layrnorm.": "ln_pre.",
        "vision_model.post_layernorm.": "ln_post.",
        "vision_model.encoder.layers.": "transformer.resblocks.",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    renamed = {}
    for key, tensor in weights.items():
        if ".k_proj" in key or ".v_proj" in key:
            continue
        if ".q_proj" in key:
            tensor = torch.cat([weights[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        for old, new in renames.items():
            key = key.replace(old, new)
        renamed[key.replace("self_attn.q_proj.", "attn.in_proj_")] = tensor
    renamed["proj"] = renamed.pop("visual_projection.weight").T.contiguous()
    return {f"visual.{key}": tensor.contiguous() for key, tensor in renamed.items()}


def pictures():
    return torch.rand(2, 28, 28, 3, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("style", ["transformers", "open_clip"])
def test_a_file_encodes_as_transformers_does(reference, weights, tmp_path, style):
    path = tmp_path / "vision.safetensors"
    save_file(weights if style == "transformers" else open_clip(weights), path)
    model = comfy.clip_vision.load(str(path))
    image = pictures()
    output = model.encode_image(image)
    expected = reference(comfy.clip_vision.clip_preprocess(image, 28), output_hidden_states=True)
    assert output["last_hidden_state"] is output.last_hidden_state
    assert torch.allclose(output.image_embeds, expected.image_embeds, atol=1e-5)
    assert torch.allclose(output.last_hidden_state, expected.last_hidden_state, atol=1e-5)
    assert torch.allclose(output.penultimate_hidden_states, expected.hidden_states[-2], atol=1e-5)
    assert output["image_sizes"] == [torch.Size([3, 28, 28])] * 2
    assert set(model.get_sd()) == set(weights)


def test_packs_call_the_network_itself(weights):
    model = comfy.clip_vision.load_clipvision_from_sd(dict(weights))
    pixels = comfy.clip_vision.clip_preprocess(pictures(), 28)
    last, second, embeds, projected = model.model(pixel_values=pixels, intermediate_output=-2)
    assert (last.shape, second.shape, embeds.shape, projected) == ((2, 5, 128), (2, 5, 128), (2, 48), None)
    everything = model.model(pixel_values=pixels, intermediate_output="all")[1]
    assert everything.shape == (2, 3, 5, 128) and everything[:, -2].equal(second)
    assert model.model(pixel_values=pixels)[1] is None


def test_an_encoder_made_from_a_configuration_takes_a_state_dict(weights, tmp_path):
    config = {**SIZES, "hidden_act": "quick_gelu", "projection_dim": 48}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model = comfy.clip_vision.ClipVisionModel(str(path))
    assert model.load_sd({**weights, "another": torch.zeros(1)}) == ([], ["another"])
    with pytest.raises(IncompleteModelError, match="the image encoder"):
        model.load_sd({})


def test_without_a_projection_the_embedding_is_the_pooled_state(weights):
    plain = {key: value for key, value in weights.items() if key != "visual_projection.weight"}
    assert comfy.clip_vision.load_clipvision_from_sd(plain).encode_image(pictures()).image_embeds.shape == (2, 128)


def test_open_clip_names_below_a_prefix(weights):
    renamed = open_clip(weights)
    assert set(comfy.clip_vision.convert_to_transformers(renamed, "visual.")) == set(weights)
    model = comfy.clip_vision.load_clipvision_from_sd(renamed, prefix="visual.", convert_keys=True)
    assert model.encode_image(pictures()).image_embeds.shape == (2, 48)


def test_pictures_are_scaled_cropped_and_rounded():
    wide = torch.zeros(1, 4, 8, 4)
    wide[:, :, 2:6, :3] = 0.501
    cropped = comfy.clip_vision.clip_preprocess(wide, 4, mean=(0, 0, 0), std=(1, 1, 1))
    assert cropped.shape == (1, 3, 4, 4) and cropped.eq(128 / 255).all()
    stretched = comfy.clip_vision.clip_preprocess(wide, 4, mean=(0, 0, 0), std=(1, 1, 1), crop=False)
    assert stretched.shape == (1, 3, 4, 4) and stretched[0, 0, 0, 0] < 0.1
    grey = comfy.clip_vision.clip_preprocess(torch.full((1, 2, 2, 3), 0.48145466), 2)
    assert grey[0, 0].abs().max() < 0.01


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1664, 16)])
def test_sizes_are_read_from_shapes(width, heads):
    layer = "vision_model.encoder.layers.{}.mlp.fc1.weight"
    shapes = {layer.format(number): (4 * width, width) for number in range(2)}
    shapes["vision_model.embeddings.patch_embedding.weight"] = (width, 3, 14, 14)
    shapes["vision_model.embeddings.position_embedding.weight"] = (577, width)
    config = read_clip_vision_config({**shapes, "visual_projection.weight": (768, width)})
    assert (config.num_heads, config.hidden_act) == (heads, "gelu" if width > 1024 else "quick_gelu")
    assert (config.image_size, config.num_layers, config.projection) == (336, 2, 768)


def test_what_is_not_an_image_encoder_or_not_clips_is_refused(weights):
    assert comfy.clip_vision.load_clipvision_from_sd({"weight": torch.zeros(1)}) is None
    with pytest.raises(UnknownModelError, match="DINOv2"):
        clip_vision_part(StateDictSource({"encoder.layer.0.layer_scale1.lambda1": torch.zeros(1)}, "a file"))
    with pytest.raises(IncompleteModelError, match="the image encoder"):
        comfy.clip_vision.load_clipvision_from_sd({key: value for key, value in weights.items() if "layer_norm2" not in key})


@pytest.fixture(scope="module")
def siglip():
    torch.manual_seed(6)
    config = SiglipVisionConfig(**SIZES, hidden_act="gelu_pytorch_tanh", attn_implementation="eager")
    return SiglipVisionModel(config).eval().requires_grad_(False).half().float()


def test_siglip_encodes_as_transformers_does(siglip, tmp_path):
    weights = {f"vision_model.{key}": value for key, value in siglip.state_dict().items() if not key.endswith("position_ids")}
    path = tmp_path / "sigclip.safetensors"
    save_file(weights, path)
    model = comfy.clip_vision.load(str(path))
    image = pictures()
    output = model.encode_image(image)
    pixels = comfy.clip_vision.clip_preprocess(image, 28, mean=[0.5] * 3, std=[0.5] * 3)
    expected = siglip(pixels, output_hidden_states=True)
    assert model.image_size == 28 and output.last_hidden_state.shape == (2, 4, 128)
    assert torch.allclose(output.last_hidden_state, expected.last_hidden_state, atol=1e-5)
    assert output.image_embeds.equal(output.last_hidden_state)
    assert torch.allclose(output.penultimate_hidden_states, expected.hidden_states[-2], atol=1e-5)
    assert torch.allclose(output.all_hidden_states[:, 0], expected.hidden_states[1], atol=1e-5)
    naflex = {**weights, "vision_model.embeddings.patch_embedding.weight": torch.zeros(128, 588)}
    with pytest.raises(UnknownModelError, match="NaFlex"):
        comfy.clip_vision.load_clipvision_from_sd(naflex)
    del weights["vision_model.post_layernorm.bias"]
    with pytest.raises(IncompleteModelError, match="post_layernorm.bias"):
        comfy.clip_vision.load_clipvision_from_sd(weights)


def test_siglips_sizes_are_read_from_shapes():
    embeddings, layer = "vision_model.embeddings.", "vision_model.encoder.layers.{}.mlp.fc1.weight"
    shapes = {layer.format(number): (4304, 1152) for number in range(27)}
    shapes |= {f"{embeddings}patch_embedding.weight": (1152, 3, 14, 14), f"{embeddings}position_embedding.weight": (729, 1152)}
    config = read_siglip_config(shapes)
    assert (config.image_size, config.patch_size, config.num_heads, config.num_layers) == (384, 14, 16, 27)


def test_llavas_encoder_gives_its_language_model_the_states_of_patches(reference, weights):
    torch.manual_seed(6)
    first, second = torch.nn.Linear(128, 40).half().float(), torch.nn.Linear(40, 40).half().float()
    projector = {f"multi_modal_projector.linear_{number}": layer for number, layer in ((1, first), (2, second))}
    named = {f"{name}.{leaf}": getattr(layer, leaf).detach() for name, layer in projector.items() for leaf in ("weight", "bias")}
    model = comfy.clip_vision.load_clipvision_from_sd({**weights, **named})
    with torch.inference_mode():
        seen = model.encode_image(pictures())
        states = reference.vision_model(comfy.clip_vision.clip_preprocess(pictures(), 28), output_hidden_states=True).hidden_states[-2]
        expected = second(torch.nn.functional.gelu(first(states[:, 1:])))
    assert seen["mm_projected"].shape == (2, 4, 40)
    torch.testing.assert_close(seen["mm_projected"], expected, rtol=1e-3, atol=1e-3)
    assert comfy.clip_vision.load_clipvision_from_sd(dict(weights)).encode_image(pictures())["mm_projected"] is None
