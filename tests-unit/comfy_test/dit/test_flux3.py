"""Flux.3: what its files are told by, its network and its sampling against diffusers', pictures to look at, few steps, LoRA names, its
text encoder."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux3Transformer2DModel
from diffusers.modular_pipelines.flux3.before_denoise import _prepare_image_ids
from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep
from flux3_files import STATES, flux3_config, flux3_tensors
from image_family_files import as_bytes, numbers
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from transformer_files import network_of, qwen3_vl_tensors
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

import comfy.model_base
import comfy.sample
import comfy.sd
import comfy.supported_models
from comfy.dit import flux3
from comfy.dit.models.flux3 import Flux3
from comfy.dit.registry import family_of, read_transformer_config
from comfy.families.model_errors import ModelFileError
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = STATES * 32
PICTURES = [numbers(1, 128, 2, 4, seed=4), numbers(2, 128, 3, 3, seed=5)]


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def loaded(tensors):
    return comfy.sd.load_diffusion_model_state_dict(dict(tensors), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module", params=[False, True], ids=["base", "few steps"])
def few_steps(request):
    return request.param


@pytest.fixture(scope="module")
def network(few_steps):
    return loaded(flux3_tensors(few_steps=few_steps)).model.diffusion_model


def inputs():
    return {"x": numbers(2, 128, 3, 5, seed=1), "timestep": torch.tensor([0.6, 0.3]), "context": numbers(2, 7, CONTEXT, seed=2)}


def in_diffusers_names(few_steps=False):
    tensors, named = flux3_tensors(few_steps=few_steps), {}
    for name, place in flux3.diffusers_places(flux3_config()).items():
        if place.key in tensors:
            whole = tensors[place.key]
            named[name] = torch.cat(whole.chunk(2)[::-1]) if place.swapped else whole
    return named


def twin(few_steps):
    """diffusers' network with the same weights."""
    made = Flux3Transformer2DModel(
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=CONTEXT,
        axes_dims_rope=(8, 8, 8, 8),
        flow_map=few_steps,
    )
    made.load_state_dict(in_diffusers_names(few_steps))
    return made.eval()


def from_diffusers(model, x, timestep, context, pictures=(), following=None):
    """What diffusers' network makes of the same."""
    told = torch.nn.functional.pad(torch.arange(float(context.shape[1]))[:, None], (3, 0))
    seen = {}
    if pictures:
        whole = [picture.expand(len(x), -1, -1, -1) for picture in pictures]
        seen["image_cond_hidden_states"] = torch.cat([one.flatten(2).transpose(1, 2) for one in whole], dim=1)
        seen["image_cond_ids"] = torch.cat([_prepare_image_ids(*one.shape[2:], 0.5, -number) for number, one in enumerate(whole, 1)])
    tokens = x.flatten(2).transpose(1, 2)
    places = _prepare_image_ids(*x.shape[2:], 0.5)
    out = model(tokens, context, timestep, places, told, target_timestep=following, return_dict=False, **seen)[0]
    return out.transpose(1, 2).unflatten(2, x.shape[2:])


def test_it_is_told_by_its_names(few_steps):
    tensors = flux3_tensors(few_steps=few_steps)
    model = loaded({"model.diffusion_model." + name: value for name, value in tensors.items()}).model
    assert type(model) is comfy.model_base.Flux3 is Flux3 and isinstance(model.model_config, comfy.supported_models.Flux3)
    assert family_of(model.model_config.unet_config) is flux3.FAMILY and model.model_type.name == "FLOW"
    assert (model.model_sampling.shift, model.context_width(), model.latent_format.latent_channels) == (6.93, CONTEXT, 128)
    assert model.model_config.unet_config["flow_map"] == few_steps and not model.model_config.inpaint_model()
    assert flux3.read_config({name: tuple(value.shape) for name, value in tensors.items() if not name.startswith("emb_in")}) is None


def test_the_real_sizes_give_the_published_names():
    network = network_of(flux3_config(width=3072, head=128, depth=5, single=28, context=2560, few_steps=True))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert 5_000_000_000 < sum(value.numel() for value in network.parameters()) < 6_000_000_000
    assert shapes["content_mode_blocks.image_cond.4.mlp_in.weight"] == (18432, 3072) and shapes["txt_in.weight"] == (3072, 20480)
    assert shapes["final_layer.image.adaLN_modulation.1.weight"] == (6144, 3072) and shapes["ref_time_in.out_layer.weight"] == (3072, 3072)
    read = read_transformer_config(shapes)
    assert (read["num_heads"], read["axes_dim"], read["depth_single_blocks"], read["mlp_ratio"]) == (24, [32] * 4, 28, 3.0)
    with pytest.raises(ModelFileError, match="heads of 12 values"):
        read_transformer_config(shapes | {"single_blocks.0.norm.query_norm.scale": (12,)})


def test_the_network_is_diffusers(network, few_steps):
    given, model = inputs(), twin(few_steps)
    steps = {"sample_sigmas": torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0])} if few_steps else {}
    following = torch.tensor([0.3, 0.1]) if few_steps else None
    for pictures in ((), PICTURES):
        expected = from_diffusers(model, **given, pictures=pictures, following=following)
        torch.testing.assert_close(network(**given, ref_latents=pictures, transformer_options=dict(steps)), expected, rtol=1e-4, atol=1e-4)
    if few_steps:  # where nobody tells what comes next, it is the end; between two steps it is the end of that step
        torch.testing.assert_close(network(**given), from_diffusers(model, **given, following=torch.zeros(2)), rtol=1e-4, atol=1e-4)
        between = {"sample_sigmas": torch.tensor([1.0, 0.5, 0.2, 0.0])}
        expected = from_diffusers(model, **given, following=torch.tensor([0.5, 0.2]))
        torch.testing.assert_close(network(**given, transformer_options=between), expected, rtol=1e-4, atol=1e-4)


def test_sampling_is_diffusers(few_steps):
    """Four steps with diffusers' own scheduler, as its pipeline sets it, from the same noise and texts; no guidance, as for few steps."""
    model, text, noise, steps = twin(few_steps), numbers(1, 7, CONTEXT, seed=2), numbers(1, 128, 4, 4, seed=3), 4
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.93)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    times, latent = [*scheduler.timesteps, torch.tensor(0.0)], noise
    for now, after in zip(times, times[1:]):
        predicted = from_diffusers(
            model, latent, now[None] / 1000, text, pictures=PICTURES[:1], following=after[None] / 1000 if few_steps else None
        )
        latent = scheduler.step(predicted, now, latent, return_dict=False)[0]
    patcher = loaded(flux3_tensors(few_steps=few_steps))
    conds = [[text, {"reference_latents": PICTURES[:1]}]]
    sampled = comfy.sample.sample(patcher, noise, steps, 1.0, "euler", "simple", conds, conds, torch.zeros_like(noise), seed=1)
    assert (sampled - latent).norm() / latent.norm() <= 1e-3


def test_files_in_diffusers_names_are_the_same(network, few_steps):
    given = {**inputs(), "ref_latents": PICTURES}
    assert torch.equal(loaded(in_diffusers_names(few_steps)).model.diffusion_model(**given), network(**given))


def test_texts_of_other_encoders_are_refused(network):
    with pytest.raises(ValueError, match="256 values per token.*type flux3"):
        network(**{**inputs(), "context": numbers(2, 5, 64)})


def test_joint_blocks_can_be_replaced(network):
    seen = []

    def replaced(given, extra):
        seen.append((given["transformer_options"]["block_index"], given["transformer_options"]["img_slice"]))
        return extra["original_block"](given)

    same = network(**inputs(), transformer_options={"patches_replace": {"dit": {("single_block", 1): replaced}}})
    assert seen == [(1, [7, 22])] and torch.equal(same, network(**inputs()))


def test_pictures_count_for_the_memory_that_is_needed():
    model = loaded(flux3_tensors()).model
    conds = model.extra_conds(cross_attn=numbers(1, 3, CONTEXT), reference_latents=PICTURES[:1])
    assert torch.equal(conds["ref_latents"].cond[0], PICTURES[0]) and conds["c_crossattn"].cond.shape[1] == 3
    assert model.extra_conds_shapes(reference_latents=PICTURES) == {"ref_latents": [1, 128, 8 + 18]} and model.extra_conds_shapes() == {}


def test_lora_names_are_the_published_ones_and_diffusers():
    names = model_lora_keys_unet(loaded(flux3_tensors()).model, {})
    weight = "diffusion_model.content_mode_blocks.image_cond.1.attn_out.weight"
    assert (
        names["transformer.mode_blocks.image_cond.1.attn.to_out.0"]
        == names["diffusion_model.content_mode_blocks.image_cond.1.attn_out"]
        == weight
    )
    assert (
        names["single_transformer_blocks.0.ff.linear_in"]
        == names["lycoris_single_blocks_0_mlp_in"]
        == "diffusion_model.single_blocks.0.mlp_in.weight"
    )
    assert "transformer.norm_out.linear" not in names


def test_the_text_encoder_is_diffusers_with_its_padding(tmp_path):
    tensors = qwen3_vl_tensors(vocabulary=VOCABULARY, width=32, layers=36)
    path = tmp_path / "qwen3vl.safetensors"
    save_file(tensors | {"tokenizer_json": as_bytes(qwen_tokenizer_json())}, path)
    clip = comfy.sd.load_clip([str(path)], clip_type=comfy.sd.CLIPType.FLUX3, model_options={"dtype": torch.float32})
    ids = [token[0] for token in clip.tokenize("rain")["qwen3vl_4b"][0]]
    states, values = clip.encode_from_tokens_scheduled(clip.tokenize("rain"))[0]
    assert states.shape == (1, 80, CONTEXT) and "attention_mask" not in values
    assert torch.equal(states[0, len(ids)], states[0, -1]) and not torch.equal(states[0, len(ids)], states[0, 0])
    expected = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds(transformers_twin(clip), Told(ids), "rain", torch.device("cpu"))
    assert (states - expected).norm() / expected.norm() <= 1e-3


class Told:
    """Stands for the tokenizer of a pipeline: whatever it is asked, the tokens are *ids*, filled up to the length that is asked for."""

    def __init__(self, ids):
        self.ids, self.tokenizer = ids, self.told

    def apply_chat_template(self, messages, **options):
        return messages[0]["content"]

    def told(self, text, max_length, padding=None, **options):
        missing = max_length - len(self.ids) if padding else 0
        mask = [1] * len(self.ids) + [0] * missing
        return {"input_ids": torch.tensor([self.ids + [151643] * missing]), "attention_mask": torch.tensor([mask])}


def transformers_twin(clip):
    """transformers' whole Qwen3-VL with the weights of *clip*'s language model."""
    inner = clip.cond_stage_model.qwen3vl_4b.transformer
    sizes = {
        **inner.config.transformers_arguments(),
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }
    eyes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=sizes, vision_config=eyes, tie_word_embeddings=True)).eval()
    own = {
        f"language_model.{name.removeprefix('model.')}": value for name, value in inner.state_dict().items() if name.startswith("model.")
    }
    missing, unexpected = model.model.load_state_dict(own, strict=False)
    assert not unexpected and all(name.startswith("visual.") for name in missing)
    return model
