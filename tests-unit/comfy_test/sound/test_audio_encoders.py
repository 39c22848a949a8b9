"""Audio encoders: their files, against transformers' networks, and what nodes get of them."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, WhisperConfig, WhisperFeatureExtractor
from transformers import Wav2Vec2Model as TheirWav2Vec2
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import comfy.model_management
from comfy.audio_encoders import audio_encoders
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model
from comfy.audio_encoders.whisper import WhisperLargeV3, log_mel
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy_extras.nodes_audio_encoder import AudioEncoderEncode, AudioEncoderLoader

SIZES = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_dim": (16,) * 7}
HEARS = {"d_model": 128, "encoder_ffn_dim": 96, "encoder_layers": 2, "encoder_attention_heads": 2, "num_mel_bins": 128}


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "text_encoder_dtype", lambda *arguments: torch.float32)
    with torch.inference_mode():
        yield


def sound(samples=20000, batch=1, channels=2):
    return 0.1 * torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(3))


def wav2vec2(stable):
    torch.manual_seed(1)
    kind = {"feat_extract_norm": "layer" if stable else "group", "do_stable_layer_norm": stable, "conv_bias": stable}
    return TheirWav2Vec2(Wav2Vec2Config(**SIZES, **kind)).eval()


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
def test_wav2vec2_hears_what_transformers_does(stable, prefix):
    theirs = wav2vec2(stable)
    model = audio_encoders.load_audio_encoder_from_sd({prefix + name: value for name, value in theirs.state_dict().items()})
    assert isinstance(model.model, Wav2Vec2Model)
    found = model.encode_audio(sound(), 16000)
    mono = sound().mean(dim=1)
    expected = theirs((mono - mono.mean()) / torch.sqrt(mono.var() + 1e-7) if stable else mono, output_hidden_states=True)
    assert torch.allclose(found["encoded_audio"], expected.last_hidden_state, atol=1e-5)
    every = found["encoded_audio_all_layers"]
    assert len(every) == 3 and every[-1] is found["encoded_audio"] and found["audio_samples"] == 20000
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(every[:-1], expected.hidden_states))


def test_whisper_hears_what_transformers_does():
    torch.manual_seed(1)
    theirs = WhisperEncoder(WhisperConfig(**HEARS)).eval()
    tensors = {f"model.encoder.{name}": value for name, value in theirs.state_dict().items()}
    model = audio_encoders.load_audio_encoder_from_sd(tensors)
    assert isinstance(model.model, WhisperLargeV3)
    found = model.encode_audio(sound(), 16000)
    picture = WhisperFeatureExtractor(feature_size=128)(
        sound().mean(dim=1)[0].numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_features
    assert torch.allclose(log_mel(sound().mean(dim=1), 128), picture, atol=2e-3)
    expected = theirs(log_mel(sound().mean(dim=1), 128)).last_hidden_state
    assert found["encoded_audio"].shape == (1, 1500, 128) and torch.allclose(found["encoded_audio"], expected, atol=1e-4)
    assert len(found["encoded_audio_all_layers"]) == 3
    long = model.encode_audio(sound(16000 * 31), 16000)
    assert torch.equal(long["encoded_audio"], model.encode_audio(sound(16000 * 31)[:, :, : 16000 * 30], 16000)["encoded_audio"])


def test_sound_is_brought_to_16_khz():
    model = audio_encoders.load_audio_encoder_from_sd(dict(wav2vec2(True).state_dict()))
    assert model.encode_audio(sound(44100), 44100)["audio_samples"] == 16000


def test_nodes_load_a_file_and_encode(tmp_path, monkeypatch):
    path = str(tmp_path / "ears.safetensors")
    save_file(dict(wav2vec2(False).state_dict()), path)
    monkeypatch.setattr("folder_paths.get_full_path_or_raise", lambda folder, name: path)
    (model,) = AudioEncoderLoader.execute("ears.safetensors").args
    (found,) = AudioEncoderEncode.execute(model, {"waveform": sound(), "sample_rate": 16000}).args
    assert found["encoded_audio"].shape[-1] == 128 and found["encoded_audio"].std() > 0.1
    with pytest.raises(ValueError, match="AudioEncoderEncode: there is no sound"):
        AudioEncoderEncode.execute(model, None)


def test_other_files_are_refused():
    with pytest.raises(UnknownModelError, match=r"wav2vec 2\.0"):
        audio_encoders.load_audio_encoder_from_sd({"x.weight": torch.zeros(2)})
    tensors = dict(wav2vec2(True).state_dict())
    del tensors["encoder.layers.1.attention.k_proj.bias"]
    with pytest.raises(IncompleteModelError, match=r"encoder\.layers\.1\.attention\.k_proj\.bias"):
        audio_encoders.load_audio_encoder_from_sd(tensors)


def test_weights_come_back_by_name():
    tensors = dict(wav2vec2(True).state_dict())
    saved = audio_encoders.load_audio_encoder_from_sd(tensors).get_sd()
    assert torch.equal(
        saved["encoder.pos_conv_embed.conv.weight_v"], tensors["encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    )
