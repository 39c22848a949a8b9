"""Nodes that turn sound into latents and back, and those of ACE-Step."""

import pytest
import torch

from comfy_extras.audio_model_nodes import decoded_sound
from comfy_extras.nodes_ace import (
    KEYS,
    EmptyAceStep15LatentAudio,
    EmptyAceStepLatentAudio,
    ReferenceAudio,
    TextEncodeAceStepAudio,
    TextEncodeAceStepAudio15,
)
from comfy_extras.nodes_audio import VAEDecodeAudio, VAEDecodeAudioTiled, VAEEncodeAudio


class Autoencoder:
    """Says what it was asked for; its sound is what it is told."""

    audio_sample_rate = 32000

    def __init__(self, sound=None):
        self.sound, self.asked = sound, []

    def encode(self, sound):
        self.asked.append(sound)
        return torch.ones(1, 4, 2)

    def decode(self, samples):
        self.asked.append(samples)
        return self.sound.clone()

    def decode_tiled(self, samples, **sizes):
        self.asked.append((samples, sizes))
        return self.sound.clone()


def test_sound_is_encoded_at_the_autoencoders_rate():
    vae = Autoencoder()
    (latent,) = VAEEncodeAudio.execute(vae, {"waveform": torch.zeros(1, 2, 441), "sample_rate": 44100}).args
    assert vae.asked[0].shape == (1, 320, 2) and torch.equal(latent["samples"], torch.ones(1, 4, 2))
    with pytest.raises(ValueError, match="VAEEncodeAudio: there is no sound"):
        VAEEncodeAudio.execute(vae, None)


def test_loud_sounds_become_softer_and_quiet_ones_stay():
    sound = torch.stack((torch.tensor([[9.0, -9.0], [9.0, -9.0]]), torch.tensor([[0.1, -0.1], [0.1, 0.0]])))
    made = decoded_sound(Autoencoder(sound), {"samples": torch.zeros(2, 4, 1)})
    deviation = torch.std(sound[0]) * 5
    assert made["sample_rate"] == 32000 and torch.allclose(made["waveform"][0], sound[0].T / deviation)
    assert torch.equal(made["waveform"][1], sound[1].T)


def test_a_latent_may_say_its_rate_and_sizes_of_pieces_are_passed_on():
    vae, latent = Autoencoder(torch.zeros(1, 4, 2)), {"samples": torch.zeros(1, 4, 1), "sample_rate": 8000}
    (made,) = VAEDecodeAudioTiled.execute(vae, latent, 64, 8).args
    assert made["sample_rate"] == 8000 and vae.asked[0][1] == {"tile_x": 64, "tile_y": 64, "overlap": 8}
    vae.audio_sample_rate_output = 24000
    (made,) = VAEDecodeAudio.execute(vae, {"samples": latent["samples"]}).args
    assert made["sample_rate"] == 24000 and made["waveform"].shape == (1, 2, 4)


def test_empty_latents_of_songs():
    (first,) = EmptyAceStepLatentAudio.execute(10.0, 2).args
    (second,) = EmptyAceStep15LatentAudio.execute(10.0, 3).args
    assert first["samples"].shape == (2, 8, 16, 107) and first["type"] == second["type"] == "audio" and not first["samples"].any()
    assert second["samples"].shape == (3, 64, 250) and second["downscale_ratio_temporal"] == 1764


class Encoder:
    """A text encoder that keeps what it is asked for."""

    def tokenize(self, tags, **about):
        self.asked = (tags, about)
        return {"tokens": 1}

    def encode_from_tokens_scheduled(self, tokens):
        return [["states", {"pooled_output": None}]]


def test_texts_of_songs():
    clip = Encoder()
    (made,) = TextEncodeAceStepAudio.execute(clip, "piano", "la", 0.5).args
    assert made == [["states", {"pooled_output": None, "lyrics_strength": 0.5}]] and clip.asked == ("piano", {"lyrics": "la"})
    about = {"lyrics": "la", "seed": 3, "bpm": 90, "duration": 9.0, "language": "en", "keyscale": KEYS[-1], "cfg_scale": 2.0}
    (made,) = TextEncodeAceStepAudio15.execute(clip, "piano", timesignature="6", **about).args
    assert made == [["states", {"pooled_output": None}]] and clip.asked == ("piano", {"timesignature": 6, **about})
    assert len(KEYS) == len(set(KEYS)) == 34 and KEYS[-1] == "B minor"


def test_references_add_up():
    latents = [{"samples": torch.full((1, 64, 2), float(number))} for number in range(2)]
    conditioning = [["states", {}]]
    for latent in latents:
        (conditioning,) = ReferenceAudio.execute(conditioning, latent).args
    assert [int(one[0, 0, 0]) for one in conditioning[0][1]["reference_audio_timbre_latents"]] == [0, 1]
    assert ReferenceAudio.execute(conditioning, None).args == (conditioning,)
