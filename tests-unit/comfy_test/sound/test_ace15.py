"""ACE-Step 1.5: its files, its network against diffusers', what it is conditioned by, LoRA."""

import pytest
import torch
from diffusers import AceStepTransformer1DModel
from sound_files import ace15_config, ace15_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import ace15
from comfy.dit.models.ace15 import ACEStep15
from comfy.dit.registry import family_of
from comfy.families.model_errors import ModelFileError
from comfy.ldm.ace.ace_step15 import AceStepConditionGenerationModel
from comfy.ldm.ace.ace_step15_layers import rotations, window_mask
from comfy.ldm.ace.music_codes import ResidualFSQ
from comfy.ldm.ace.silence import get_silence_latent
from comfy.loading.lora_keys import model_lora_keys_unet
from comfy.ops import disable_weight_init

TEXT = 40


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    made = network_of(ace15_config())
    made.load_weights(ace15_tensors())
    return made


@pytest.fixture(scope="module")
def model():
    return comfy.sd.load_diffusion_model_state_dict(ace15_tensors(), model_options={"dtype": torch.float32})


def inputs(places=21, batch=1):
    return {
        "x": numbers(batch, 64, places, seed=1),
        "timestep": torch.full((batch,), 0.7),
        "context": numbers(batch, 5, TEXT, seed=2),
        "lyric_embed": numbers(batch, 6, TEXT, seed=3),
        "refer_audio": numbers(batch, 64, places, seed=4),
    }


def test_networks_are_told_by_their_tensors(model):
    made = model.model
    assert type(made) is comfy.model_base.ACEStep15 is ACEStep15 and type(made.model_config) is comfy.supported_models.ACEStep15
    assert family_of(made.model_config.unet_config) is ace15.FAMILY and isinstance(made.diffusion_model, AceStepConditionGenerationModel)
    assert made.model_sampling.shift == 3.0 and float(made.model_sampling.sigma_max) == 1.0
    assert isinstance(made.latent_format, comfy.latent_formats.ACEAudio15) and made.latent_format.latent_dimensions == 1


def test_heads_of_another_width_are_refused():
    shapes = {name: tuple(value.shape) for name, value in ace15_tensors().items()}
    shapes["decoder.layers.0.self_attn.k_proj.weight"] = (1000, 64)
    with pytest.raises(ModelFileError, match="multiples of 128"):
        ace15.read_config(shapes)


@pytest.mark.parametrize("places", [21, 300])
def test_the_diffusion_model_proper_is_diffusers(network, places):
    config = ace15_config()
    theirs = AceStepTransformer1DModel(64, 96, 3, 16, 8, 128, encoder_hidden_size=48)
    own = dict(network.named_parameters())
    theirs.load_state_dict({name: own[place.key] for name, place in ace15.diffusers_places(config).items()})
    x, asked, known = numbers(1, 64, places, seed=1), numbers(1, 7, 48, seed=2), numbers(1, 128, places, seed=3)
    time = torch.tensor([0.4])
    expected = theirs(x.mT, time, time, asked, known.mT).sample.mT
    found = network.decoder(torch.cat((known, x), dim=1), time, time, asked, {})
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())


def test_codes_count_and_fill_up(network):
    some, more = torch.tensor([[17, 63999]]), torch.tensor([[17, 63999, 35847, 35847, 35847]])
    first = network(**inputs(), audio_codes=some)
    assert torch.equal(first, network(**inputs(), audio_codes=more))
    assert not torch.allclose(first, network(**inputs(), audio_codes=torch.tensor([[18, 63999]])))
    assert not torch.allclose(first, network(**inputs())), "the codes of the reference"
    plain = network(**inputs(), is_covers=False)
    assert torch.equal(plain, network(**inputs(), audio_codes=some, is_covers=False)) and not torch.allclose(plain, first)


def test_codes_are_places_of_a_grid():
    quantizer = ResidualFSQ((8, 5), 2, operations=disable_weight_init, dtype=torch.float32, device="cpu")
    for layer in (quantizer.project_in, quantizer.project_out):
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    found = quantizer.get_output_from_indices(torch.tensor([[0, 7, 8, 39]]))
    assert torch.allclose(found, torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [-1.0, -0.5], [1.0, 1.0]]]))
    assert torch.allclose(quantizer(torch.tensor([[0.05, -9.0], [9.0, 0.0]])), torch.tensor([[1 / 7, -1.0], [5 / 7, 0.0]]), atol=1e-6)


def test_nothing_asked_for_forgets_text_and_lyrics(network):
    given = inputs()
    empty = network(**given, replace_with_null_embeds=True)
    other = network(**{**given, "context": given["context"] + 1}, replace_with_null_embeds=True)
    assert torch.equal(empty, other) and not torch.allclose(empty, network(**given))


def test_lyrics_are_needed(network):
    with pytest.raises(ValueError, match=r"TextEncodeAceStepAudio1\.5"):
        network(**{**inputs(), "lyric_embed": None})


def test_tokens_far_apart_do_not_see_each_other():
    assert window_mask(5, 4, "cpu") is None
    assert window_mask(4, 1, "cpu").int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    cosines, sines = rotations(3, 4, torch.zeros(1))
    assert cosines.shape == sines.shape == (3, 4) and torch.allclose(cosines[2, 0], torch.tensor(2.0).cos())


def test_silence_goes_on():
    short, long = get_silence_latent(3, None), get_silence_latent(9, None)
    assert short.shape == (1, 64, 3) and torch.equal(long[:, :, :3], short)
    assert torch.equal(long[:, :, 4:], long[:, :, 4:5].expand(-1, -1, 5)) and long[0, 19, 0] == pytest.approx(-6.7266)


def conds(model, **given):
    noise = torch.zeros(1, 64, 12)
    made = model.model.extra_conds(noise=noise, device=torch.device("cpu"), cross_attn=numbers(1, 5, TEXT), **given)
    return {name: cond.cond for name, cond in made.items()}


def test_what_the_music_is_to_be_like(model):
    lyrics = {"conditioning_lyrics": numbers(1, 6, TEXT)}
    silence = get_silence_latent(12, None)
    plain = conds(model, **lyrics)
    assert plain["is_covers"] is False and torch.equal(plain["refer_audio"], silence) and "replace_with_null_embeds" not in plain
    codes = conds(model, **lyrics, audio_codes=[[1, 2]])
    assert codes["audio_codes"].tolist() == [[1, 2]] and "is_covers" not in codes
    reference = numbers(1, 64, 5)
    cover = conds(model, **lyrics, audio_codes=[[1, 2]], reference_audio_timbre_latents=[numbers(1, 64, 3), reference])
    assert cover["is_covers"] is True and "audio_codes" not in cover
    assert torch.equal(cover["refer_audio"], torch.cat((reference, silence[:, :, 5:]), dim=2))
    nothing = model.model.extra_conds(
        noise=torch.zeros(1, 64, 12), device=torch.device("cpu"), cross_attn=torch.zeros(1, 5, TEXT), **lyrics
    )
    assert nothing["replace_with_null_embeds"].cond is True


def test_text_of_another_family_is_refused(model):
    with pytest.raises(ValueError, match="40 values per token"):
        model.model.extra_conds(noise=torch.zeros(1, 64, 12), device=torch.device("cpu"), cross_attn=numbers(1, 5, 32))


def test_loras_are_found_by_the_authors_and_diffusers_names(model):
    names = model_lora_keys_unet(model.model, {})
    weight = "diffusion_model.decoder.layers.1.cross_attn.k_proj.weight"
    spellings = (
        "base_model.model.layers.1.cross_attn.k_proj",
        "lycoris_layers_1_cross_attn_k_proj",
        "transformer.layers.1.cross_attn.to_k",
    )
    assert {names[one] for one in (*spellings, "diffusion_model.decoder.layers.1.cross_attn.k_proj")} == {weight}
    assert names["transformer.proj_in_conv"] == "diffusion_model.decoder.proj_in.1.weight"
