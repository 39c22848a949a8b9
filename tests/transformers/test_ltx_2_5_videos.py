"""LTX 2.5 over HTTP: a model that writes makes the prompt, another one reads it, and a picture becomes a video with sound that plays."""

import gemma4_files
import pytest
import torch
from ltx_files import (
    SOUND_WIDTH,
    WIDTH,
    diffusion_vae_metadata,
    diffusion_vae_tensors,
    ltx_file,
    ltx_sound_metadata,
    ltx_sound_tensors,
    ltx_upsampler_file,
)
from picture_prompts import node
from safetensors.torch import save_file
from test_ltx_videos import LENGTH, SIDE, heard, sampled, with_models
from video_prompts import FPS, played

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
pytest.importorskip("av")

DRAWN = {
    "sampling_mode": "on",
    "sampling_mode.temperature": 0.7,
    "sampling_mode.top_k": 64,
    "sampling_mode.top_p": 0.95,
    "sampling_mode.min_p": 0.05,
    "sampling_mode.repetition_penalty": 1.15,
    "sampling_mode.seed": 3,
    "sampling_mode.presence_penalty": 0.0,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models under the names of the templates."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "vae", "text_encoders", "latent_upscale_models"):
        (folder / kind).mkdir()
    numbers = torch.Generator().manual_seed(9)
    projection = {
        f"text_embedding_projection.{sense}_aggregate_embed.weight": torch.randn(width, 49 * gemma4_files.WIDTH, generator=numbers) * 0.02
        for sense, width in (("video", WIDTH), ("audio", SOUND_WIDTH))
    }
    reads, writes = ({**gemma4_files.gemma4_tensors("12b"), **projection}, gemma4_files.gemma4_tensors("e2b"))
    ltx_file(folder / "diffusion_models" / "ltx-2.5.safetensors", "2.5")
    save_file(diffusion_vae_tensors(), folder / "vae" / "video.safetensors", diffusion_vae_metadata())
    sound = {name: value.contiguous() for name, value in ltx_sound_tensors("2.3").items()}
    save_file(sound, folder / "vae" / "sound.safetensors", ltx_sound_metadata("2.3"))
    save_file(gemma4_files.with_tokenizer(reads), folder / "text_encoders" / "gemma4-12b-with-proj.safetensors")
    save_file(gemma4_files.with_tokenizer(writes), folder / "text_encoders" / "gemma4_e2b.safetensors")
    ltx_upsampler_file(folder / "latent_upscale_models" / "larger.safetensors")
    return folder


def prompt():
    """What the templates do: a written prompt, a picture, two samplers with an upscaler between them, tiles."""
    sides = {"positive": ["told", 0], "negative": ["told", 1], "model": ["model", 0], "video_cfg": 1.0, "audio_cfg": 1.0}
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    begun = {"vae": ["vae", 0], "image": ["seen", 0], "bypass": False}
    return {
        "writer": node("CLIPLoader", clip_name="gemma4_e2b.safetensors", type="ltxv", device="default"),
        "picture": node("EmptyImage", width=48, height=48, batch_size=1, color=0x336699),
        "written": node("TextGenerateLTX2Prompt", clip=["writer", 0], prompt="rain", image=["picture", 0], max_length=6, **DRAWN),
        "clip": node("CLIPLoader", clip_name="gemma4-12b-with-proj.safetensors", type="ltxv", device="default"),
        "model": node("UNETLoader", unet_name="ltx-2.5.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="video.safetensors"),
        "sound_vae": node("VAELoader", vae_name="sound.safetensors"),
        "positive": node("CLIPTextEncode", text=["written", 0], clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="ugly", clip=["clip", 0]),
        "told": node("LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=float(FPS)),
        "seen": node("LTXVPreprocess", image=["picture", 0], img_compression=18),
        "video": node("EmptyLTXVLatentVideo", width=SIDE, height=SIDE, length=LENGTH, batch_size=1),
        "sound": node("LTXVEmptyLatentAudio", frames_number=LENGTH, frame_rate=FPS, batch_size=1, audio_vae=["sound_vae", 0]),
        "begun": node("LTXVImgToVideoInplace", latent=["video", 0], strength=0.7, **begun),
        "joined": node("LTXVConcatAVLatent", video_latent=["begun", 0], audio_latent=["sound", 0]),
        "guided": node("LTXVDualCFGGuider", **sides),
        **sampled("first", ["guided", 0], ["joined", 0]),
        "larger": node("LatentUpscaleModelLoader", model_name="larger.safetensors"),
        "enlarged": node("LTXVLatentUpsampler", samples=["first", 0], upscale_model=["larger", 0], vae=["vae", 0]),
        "again": node("LTXVImgToVideoInplace", latent=["enlarged", 0], strength=1.0, **begun),
        "both": node("LTXVConcatAVLatent", video_latent=["again", 0], audio_latent=["first", 1]),
        **sampled("second", ["guided", 0], ["both", 0], seed=6),
        "pictures": node("VAEDecodeTiled", samples=["second", 0], vae=["vae", 0], **tiles),
        "heard": node("LTXVAudioVAEDecode", samples=["second", 1], audio_vae=["sound_vae", 0]),
        "made": node("CreateVideo", images=["pictures", 0], fps=FPS, audio=["heard", 0]),
        "save": node("SaveVideo", video=["made", 0], filename_prefix="video/made", format="auto", **{"format.codec": "auto"}),
    }


def test_ltx_2_5_makes_a_video_with_sound_of_words_that_gemma_wrote(start_server, files):
    flags = ("--fp32-text-enc", "--fp32-unet", "--fp32-vae", "--offline", "--ram-model-cache-mb", "1000")
    server = start_server(*flags, name="ltx25", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    with_models(server, files)
    run = server.run(prompt(), timeout_s=300)
    frames, rate, seconds = played(run)
    assert len(frames) == LENGTH and rate == FPS and seconds == pytest.approx(LENGTH / FPS, abs=0.02)
    assert frames[0].shape == (2 * SIDE, 2 * SIDE, 3) and max(frame.std() for frame in frames) > 2
    samples, hertz = heard(run)
    assert hertz == 48000 and samples / hertz == pytest.approx(LENGTH / FPS, abs=0.1)
    about = {"image": ["picture", 0], "audio": ["silence", 0], "video": ["frames", 0], "use_default_template": True, "thinking": True}
    asked = {
        "writer": prompt()["writer"],
        "picture": prompt()["picture"],
        "frames": node("EmptyImage", width=48, height=48, batch_size=30, color=0x996633),
        "silence": node("EmptyAudio", duration=0.5, sample_rate=44100, channels=2),
        "said": node("TextGenerate", clip=["writer", 0], prompt="what is it?", max_length=5, sampling_mode="off", **about),
        "shown": node("PreviewAny", source=["said", 0]),
    }
    outputs = server.run(asked, timeout_s=300).history["outputs"]
    assert isinstance(outputs["shown"]["text"][0], str)
