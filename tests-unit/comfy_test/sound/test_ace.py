"""ACE-Step 1: its files, its network, its autoencoder and vocoder, LoRA."""

import pytest
import torch
from sound_files import ace_config, ace_tensors, music_vae_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.audio import music_dcae
from comfy.audio.music_vocoder import log_mel
from comfy.audio.normed import NormedConvolution, NormedTransposed, older_name
from comfy.dit import ace
from comfy.dit.models.ace import ACEStep
from comfy.dit.registry import family_of
from comfy.families.model_errors import ModelFileError, UnknownModelError
from comfy.ldm.ace.attention import turned
from comfy.ldm.ace.lyric_encoder import relative_places, shifted
from comfy.ldm.ace.model import ACEStepTransformer2DModel, angles_of_places
from comfy.loading.lora_keys import model_lora_keys_unet


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    made = network_of(ace_config())
    made.load_weights(ace_tensors())
    return made


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(music_vae_tensors())


def inputs():
    given = {"x": numbers(1, 8, 16, 7, seed=1), "timestep": torch.tensor([600.0]), "context": numbers(1, 4, 32, seed=2)}
    return {**given, "speaker_embeds": torch.zeros(1, 512), "lyric_token_idx": torch.tensor([[261, 9, 2]])}


def test_networks_are_told_by_their_tensors():
    model = comfy.sd.load_diffusion_model_state_dict(ace_tensors(), model_options={"dtype": torch.float32}).model
    assert type(model) is comfy.model_base.ACEStep is ACEStep and type(model.model_config) is comfy.supported_models.ACEStep
    assert family_of(model.model_config.unet_config) is ace.FAMILY and isinstance(model.diffusion_model, ACEStepTransformer2DModel)
    assert model.model_sampling.shift == 3.0 and isinstance(model.latent_format, comfy.latent_formats.ACEAudio)
    assert model.context_width() == 32
    weight = "diffusion_model.transformer_blocks.1.attn.to_q.weight"
    assert model_lora_keys_unet(model, {})["transformer_blocks.1.attn.to_q"] == weight


def test_a_width_without_whole_heads_is_refused():
    shapes = {name: tuple(value.shape) for name, value in ace_tensors().items()}
    with pytest.raises(ModelFileError, match="multiple of 128"):
        ace.read_config({**shapes, "genre_embedder.weight": (130, 32)})


def test_every_input_counts(network):
    plain = network(**inputs())
    assert plain.shape == (1, 8, 16, 7)
    changed = {"timestep": torch.tensor([601.0]), "lyric_token_idx": torch.tensor([[261, 10, 2]]), "lyrics_strength": 0.5}
    changed |= {"context": numbers(1, 4, 32, seed=5), "speaker_embeds": torch.ones(1, 512)}
    for name, value in changed.items():
        assert not torch.allclose(network(**{**inputs(), name: value}), plain), name
    with pytest.raises(ValueError, match="TextEncodeAceStepAudio"):
        network(**{**inputs(), "lyric_token_idx": None})


def test_what_samplers_pass_on():
    model = comfy.sd.load_diffusion_model_state_dict(ace_tensors(), model_options={"dtype": torch.float32}).model
    given = {"noise": torch.zeros(2, 8, 16, 4), "device": torch.device("cpu"), "cross_attn": numbers(1, 4, 32)}
    made = model.extra_conds(**given, conditioning_lyrics=torch.tensor([[261, 2]]), lyrics_strength=0.3)
    assert made["lyric_token_idx"].cond.tolist() == [[261, 2]] and made["lyrics_strength"].cond == 0.3
    assert made["speaker_embeds"].cond.shape == (2, 512) and not made["speaker_embeds"].cond.any()
    with pytest.raises(ValueError, match="32 values per token"):
        model.extra_conds(**{**given, "cross_attn": numbers(1, 4, 16)})


def test_scores_by_distance_become_scores_by_token():
    scores = numbers(1, 2, 4, 7)
    by_token = shifted(scores)
    for query in range(4):
        for key in range(4):
            assert torch.equal(by_token[..., query, key], scores[..., query, 3 - query + key])
    places = relative_places(3, 4, torch.zeros(1))
    assert places.shape == (5, 4) and torch.allclose(
        places[0, :2], torch.tensor([2.0, 2.0]).sin().lerp(torch.tensor([2.0]).cos(), torch.tensor([0.0, 1.0]))
    )


def test_pairs_of_neighbours_turn():
    turns = angles_of_places(2, 4, 10000.0, torch.zeros(1))
    tokens = torch.tensor([[[[1.0, 0.0, 0.0, 1.0]] * 2]])
    found = turned(tokens, turns)
    assert torch.equal(found[0, 0, 0], tokens[0, 0, 0])
    one, hundredth = torch.tensor(1.0), torch.tensor(0.01)
    assert torch.allclose(found[0, 0, 1], torch.stack((one.cos(), hundredth.sin(), -one.sin(), hundredth.cos())))


def test_a_normed_weight_is_torchs():
    layer, other = torch.nn.Conv1d(3, 5, 3), torch.nn.ConvTranspose1d(3, 5, 4, 2)
    for plain, kind, sizes in ((layer, NormedConvolution, (3, 5, 3)), (other, NormedTransposed, (3, 5, 4, 2))):
        own = kind(*sizes)
        own.part()
        theirs = torch.nn.utils.parametrizations.weight_norm(plain)
        own.load_state_dict({older_name(name): value for name, value in theirs.state_dict().items()})
        assert torch.allclose(own(numbers(1, 3, 9)), theirs(numbers(1, 3, 9)), atol=1e-6)


def test_a_tone_is_loud_at_its_pitch():
    tone = torch.sin(torch.arange(44100) * (2 * torch.pi * 3000 / 44100))[None]
    picture = log_mel(tone)
    assert picture.shape == (1, 128, 86)
    loudest = picture[0, :, 40].argmax().item()
    lower = log_mel(torch.sin(torch.arange(44100) * (2 * torch.pi * 300 / 44100))[None])[0, :, 40].argmax().item()
    assert lower < loudest < 127 and picture.min() >= -11.6


def test_sounds_become_latents_and_sounds(vae):
    assert (vae.audio_sample_rate, vae.downscale_ratio, vae.latent_channels, vae.extra_1d_channel) == (44100, 4096, 8, 16)
    sound = 0.3 * numbers(2, 4096 * 3 + 50, 1)
    latent = vae.encode(sound)
    assert latent.shape == (2, 8, 16, 3) and torch.allclose(latent[:1], vae.encode(sound[:1]), atol=1e-5)
    decoded = vae.decode(latent)
    assert decoded.shape == (2, 3 * 4096, 2) and decoded.abs().max() < 1 and not torch.equal(decoded[0], decoded[1])
    long = numbers(1, 8, 16, 12)
    whole, pieces = vae.decode(long), vae.decode_tiled(long, tile_x=8, tile_y=8, overlap=4)
    assert pieces.shape == whole.shape and (whole - pieces).norm() < 0.5 * whole.norm()
    assert vae.encode_tiled(0.3 * numbers(1, 4096 * 40, 2), tile_x=4096 * 16 * 8, overlap=4096 * 16).shape == (1, 8, 16, 40)


def test_its_weights_have_the_published_names(vae):
    saved, read = vae.get_sd(), music_vae_tensors()
    assert saved.keys() == read.keys() and all(torch.equal(saved[name], value) for name, value in read.items())


def test_columns_of_another_length_are_refused():
    shapes = {name: tuple(value.shape) for name, value in music_vae_tensors().items()}
    name = "vocoder.head.ups.0.parametrizations.weight.original1"
    with pytest.raises(UnknownModelError, match="columns of 1024 samples"):
        music_dcae.read_music_vae_config({**shapes, name: (*shapes[name][:2], 16)})
