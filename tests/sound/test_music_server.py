"""Models of sound over HTTP: tags and lyrics become music in a file that plays."""

import io

import pytest
import torch
from picture_prompts import node
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file
from sound_files import ace15_file, oobleck_file, stable_audio_file
from stable_audio3_files import stable_audio3_file
from t5_gemma_files import t5_gemma_tensors, with_words
from text_encoder_files import text_model, write_tokenizer
from transformer_files import qwen_text_tensors

pytestmark = pytest.mark.timeout(900)
av = pytest.importorskip("av", reason="sound files are read and written by PyAV: pip install av")

CODES = 215670  # tokens of a model that writes codes of music
SECONDS = 1.2


def heard(run):
    """(samples per second, channels, seconds, samples) of the sound that *run* saved."""
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with av.open(io.BytesIO(run.file_bytes())) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        frames = [piece.to_ndarray() for frame in container.decode(stream) for piece in resampler.resample(frame)]
    samples = torch.cat([torch.from_numpy(frame) for frame in frames], dim=1)
    return stream.rate, len(samples), samples.shape[1] / stream.rate, samples


def sampled(model, positive, negative, latent, **changed):
    """A sampler of two steps."""
    settings = {"seed": 5, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return node("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **{**settings, **changed})


def ace15_song(**changed):
    """The official workflow for ACE-Step 1.5 from files of its parts."""
    song = {"tags": "piano, slow", "lyrics": "[verse]\nuser\n", "seed": 3, "bpm": 90, "duration": SECONDS, "timesignature": "4"}
    song |= {"language": "en", "keyscale": "C major", "generate_audio_codes": True, "cfg_scale": 2.0, "temperature": 0.85}
    song |= {"top_p": 0.9, "top_k": 0, "min_p": 0.0, **changed}
    return {
        "model": node("UNETLoader", unet_name="ace15.safetensors", weight_dtype="default"),
        "shifted": node("ModelSamplingAuraFlow", model=["model", 0], shift=3.0),
        "clip": node("DualCLIPLoader", clip_name1="small.safetensors", clip_name2="writer.safetensors", type="ace", device="default"),
        "vae": node("VAELoader", vae_name="ace15.safetensors"),
        "positive": node("TextEncodeAceStepAudio1.5", clip=["clip", 0], **song),
        "negative": node("ConditioningZeroOut", conditioning=["positive", 0]),
        "latent": node("EmptyAceStep1.5LatentAudio", seconds=SECONDS, batch_size=1),
        "sample": sampled(["shifted", 0], ["positive", 0], ["negative", 0], ["latent", 0]),
        "decode": node("VAEDecodeAudio", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveAudioAdvanced", audio=["decode", 0], filename_prefix="audio/song", format="flac"),
    }


def ace15_cover():
    """The same with a sound that the music is to be like, without codes, and decoded in pieces."""
    reference = {
        "quiet": node("EmptyAudio", duration=SECONDS / 2, sample_rate=44100, channels=1),
        "known": node("VAEEncodeAudio", audio=["quiet", 0], vae=["vae", 0]),
        "told": node("ReferenceTimbreAudio", conditioning=["positive", 0], latent=["known", 0]),
    }
    decoded = node("VAEDecodeAudioTiled", samples=["sample", 0], vae=["vae", 0], tile_size=32, overlap=8)
    sample = sampled(["shifted", 0], ["told", 0], ["negative", 0], ["latent", 0], cfg=2.0)
    return {**ace15_song(generate_audio_codes=False), **reference, "sample": sample, "decode": decoded}


@pytest.fixture(scope="module")
def ace15_models(tmp_path_factory):
    """A folder of models: the network, both text models with a tokenizer beside them, the autoencoder."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders/qwen25_tokenizer", "vae"):
        (folder / kind).mkdir(parents=True)
    ace15_file(folder / "diffusion_models" / "ace15.safetensors", text=1024)
    texts = folder / "text_encoders"
    (texts / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    for name, vocabulary, width in (("small", VOCABULARY, 1024), ("writer", CODES, 64)):
        tensors = qwen_text_tensors(eyes=False, normalised=True, vocabulary=vocabulary, width=width, layers=1)
        save_file({key: value.to(torch.bfloat16) for key, value in tensors.items()}, texts / f"{name}.safetensors")
    oobleck_file(folder / "vae" / "ace15.safetensors")
    return folder


def with_models(server, folder):
    """*server*, after the models of *folder* were put where it looks for them."""
    for kind in folder.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


@pytest.mark.long
def test_ace_step_15_makes_music_that_plays(start_server, ace15_models):
    environment = {"OMP_NUM_THREADS": "1"}
    server = with_models(
        start_server("--offline", "--ram-model-cache-mb", "1500", environment=environment, start_timeout_s=300), ace15_models
    )
    made = []
    for prompt in (ace15_song(), ace15_song(seed=4), ace15_cover()):
        run = server.run(prompt, timeout_s=400)
        rate_hz, channels, seconds, samples = heard(run)
        assert (rate_hz, channels) == (48000, 2) and seconds == pytest.approx(SECONDS, abs=1e-3)
        assert samples.std() > 1e-3, "silence"
        made.append(samples)
    assert not torch.equal(made[0], made[1]), "codes are drawn by the seed"
    assert not torch.equal(made[0], made[2])


def stable_audio_sound(**times):
    """The official workflow for Stable Audio, and how long the sound is to be."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="stable.safetensors"),
        "clip": node("CLIPLoader", clip_name="t5.safetensors", type="stable_audio", device="default"),
        "positive": node("CLIPTextEncode", text="a bird in the rain", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "told": node("ConditioningStableAudio", positive=["positive", 0], negative=["negative", 0], seconds_start=0.0, **times),
        "latent": node("EmptyLatentAudio", seconds=SECONDS, batch_size=1),
        "sample": sampled(["model", 0], ["told", 0], ["told", 1], ["latent", 0], cfg=3.0, sampler_name="dpmpp_3m_sde_gpu"),
        "decode": node("VAEDecodeAudio", samples=["sample", 0], vae=["model", 2]),
        "save": node("SaveAudioMP3", audio=["decode", 0], filename_prefix="audio/sound", quality="320k"),
    }


def test_stable_audio_makes_sound_that_plays(start_server):
    server = start_server("--offline", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    models = server.base / "models"
    for kind in ("checkpoints", "text_encoders"):
        (models / kind).mkdir(parents=True, exist_ok=True)
    stable_audio_file(models / "checkpoints" / "stable.safetensors", inner=128)
    save_file(text_model("t5base"), models / "text_encoders" / "t5.safetensors")
    write_tokenizer(models / "text_encoders" / "t5")
    made = []
    for seconds in (1.0, 400.0):
        rate_hz, channels, length, samples = heard(server.run(stable_audio_sound(seconds_total=seconds), timeout_s=300))
        assert (rate_hz, channels) == (44100, 2) and length == pytest.approx(26 * 2048 / 44100, abs=0.06)
        assert samples.std() > 1e-3, "silence"
        made.append(samples)
    assert not torch.equal(*made), "the length that is asked for counts"


def stable_audio3_sound(**texts):
    """The official workflow for Stable Audio 3, without the model that writes more about what is asked for."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="third.safetensors"),
        "clip": node("CLIPLoader", clip_name="t5gemma.safetensors", type="stable_audio", device="default"),
        "positive": node("CLIPTextEncode", text=texts.get("text", "a bird in the rain"), clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "latent": node("EmptyLatentAudio", seconds=SECONDS, batch_size=1),
        "sample": sampled(["model", 0], ["positive", 0], ["negative", 0], ["latent", 0], sampler_name="lcm"),
        "decode": node("VAEDecodeAudio", samples=["sample", 0], vae=["model", 2]),
        "save": node("SaveAudioAdvanced", audio=["decode", 0], filename_prefix="audio/sound", format="mp3", **{"format.quality": "V0"}),
    }


def stable_audio3_change(saved):
    """The same from a sound that is there, of which much stays, for a time that is told, and decoded in pieces."""
    prompt = stable_audio3_sound()
    prompt["told"] = node(
        "ConditioningStableAudio", positive=["positive", 0], negative=["negative", 0], seconds_start=0.0, seconds_total=30.0
    )
    prompt["quiet"] = node("EmptyAudio", duration=SECONDS, sample_rate=44100, channels=1)
    prompt["latent"] = node("VAEEncodeAudio", audio=["quiet", 0], vae=["model", 2])
    prompt["sample"] = sampled(["model", 0], ["told", 0], ["told", 1], ["latent", 0], cfg=3.0, denoise=0.6)
    prompt["decode"] = node("VAEDecodeAudioTiled", samples=["sample", 0], vae=["model", 2], tile_size=32, overlap=8)
    return {**prompt, "save": saved}


@pytest.mark.parametrize("kind", ["large", "small"])
def test_stable_audio_3_makes_sound_that_plays(start_server, kind):
    server = start_server("--offline", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    models = server.base / "models"
    for folder in ("checkpoints", "text_encoders"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    stable_audio3_file(models / "checkpoints" / "third.safetensors", kind=kind)
    save_file(with_words(t5_gemma_tensors()), models / "text_encoders" / "t5gemma.safetensors")
    lossless = node("SaveAudio", audio=["decode", 0], filename_prefix="audio/sound")
    made, places = [], 13 if kind == "large" else 14
    for prompt in (stable_audio3_sound(), stable_audio3_sound(text="an apple"), stable_audio3_change(lossless)):
        rate_hz, channels, length, samples = heard(server.run(prompt, timeout_s=300))
        assert (rate_hz, channels) == (44100, 2) and length == pytest.approx((12 if "told" in prompt else places) * 4096 / 44100, abs=0.06)
        assert samples.std() > 1e-3, "silence"
        made.append(samples)
    assert not torch.equal(*made[:2]), "words count"
