"""LTX over HTTP: text, a picture and guides make videos that play, LTX 2's with sound; larger ones by an upscaler."""

import io

import pytest
import torch
from ltx_files import ltx_checkpoint, ltx_upsampler_file
from picture_prompts import node
from safetensors.torch import save_file
from text_encoder_files import sentence_piece_model, text_model
from video_prompts import FPS, played

pytestmark = pytest.mark.timeout(900)
pytest.importorskip("av")
pytest.importorskip("sentencepiece", reason="Gemma's and T5's tokenizers need it")

SIDE, LENGTH = 64, 9


def carrying(kind, vocabulary=512):
    """A small text model with a tokenizer in its file."""
    words = torch.frombuffer(bytearray(sentence_piece_model(begins=True)), dtype=torch.uint8)
    return {**text_model(kind, vocabulary=vocabulary), "spiece_model": words}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: checkpoints of three ages, text encoders, an upscaler."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("checkpoints", "text_encoders", "latent_upscale_models"):
        (folder / kind).mkdir()
    ltx_checkpoint(folder / "checkpoints" / "ltx-2.safetensors", "2")
    ltx_checkpoint(folder / "checkpoints" / "ltx-2.3.safetensors", "2.3", "2.3")
    ltx_checkpoint(folder / "checkpoints" / "ltxv-0.9.1.safetensors", "0.9, by a small T5", "0.9.1")
    save_file(carrying("t5xxl", 4000), folder / "text_encoders" / "t5.safetensors")
    save_file(carrying("gemma3_12b"), folder / "text_encoders" / "gemma.safetensors")
    ltx_upsampler_file(folder / "latent_upscale_models" / "larger.safetensors")
    return folder


def with_models(server, files):
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


def loaders(checkpoint):
    """The loaders of LTX 2's workflows, their texts, a picture, and empty latents of a video and of its sound."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "clip": node("LTXAVTextEncoderLoader", text_encoder="gemma.safetensors", ckpt_name=checkpoint, device="default"),
        "sound_vae": node("LTXVAudioVAELoader", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", text="a cat in the sun", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "told": node("LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=float(FPS)),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "seen": node("LTXVPreprocess", image=["picture", 0], img_compression=30),
        "video": node("EmptyLTXVLatentVideo", width=SIDE, height=SIDE, length=LENGTH, batch_size=1),
        "sound": node("LTXVEmptyLatentAudio", frames_number=LENGTH, frame_rate=FPS, batch_size=1, audio_vae=["sound_vae", 0]),
    }


def sampled(name, guider, latent, seed=5):
    """Nodes that sample *latent*; the first latent that *name* gives is the video's, the second one its sound's."""
    path = {"noise": [f"{name} noise", 0], "guider": guider, "sampler": [f"{name} sampler", 0], "sigmas": [f"{name} sigmas", 0]}
    return {
        f"{name} noise": node("RandomNoise", noise_seed=seed),
        f"{name} sampler": node("KSamplerSelect", sampler_name="euler"),
        f"{name} sigmas": node("LTXVScheduler", steps=2, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=["video", 0]),
        f"{name} sample": node("SamplerCustomAdvanced", latent_image=latent, **path),
        name: node("LTXVSeparateAVLatent", av_latent=[f"{name} sample", 0]),
    }


def saved(video, sound=None, tiled=False):
    """Nodes that decode both and save a video."""
    tiles = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    pictures = (
        node("VAEDecodeTiled", samples=video, vae=["model", 2], **tiles) if tiled else node("VAEDecode", samples=video, vae=["model", 2])
    )
    heard = {} if sound is None else {"heard": node("LTXVAudioVAEDecode", samples=sound, audio_vae=["sound_vae", 0])}
    track = {"audio": ["heard", 0]} if heard else {}
    return {
        "pictures": pictures,
        **heard,
        "made": node("CreateVideo", images=["pictures", 0], fps=FPS, **track),
        "save": node("SaveVideo", video=["made", 0], filename_prefix="video/made", format="auto", **{"format.codec": "auto"}),
    }


def from_text():
    """Text to video with sound, then larger: two samplers and an upscaler between them."""
    sides = {"positive": ["told", 0], "negative": ["told", 1], "model": ["model", 0]}
    return {
        **loaders("ltx-2.safetensors"),
        "joined": node("LTXVConcatAVLatent", video_latent=["video", 0], audio_latent=["sound", 0]),
        "guided": node("LTXVDualCFGGuider", **sides, video_cfg=2.0, audio_cfg=3.0),
        **sampled("first", ["guided", 0], ["joined", 0]),
        "larger": node("LatentUpscaleModelLoader", model_name="larger.safetensors"),
        "enlarged": node("LTXVLatentUpsampler", samples=["first", 0], upscale_model=["larger", 0], vae=["model", 2]),
        "again": node("LTXVConcatAVLatent", video_latent=["enlarged", 0], audio_latent=["first", 1]),
        "plain": node("CFGGuider", **sides, cfg=1.0),
        **sampled("second", ["plain", 0], ["again", 0], seed=6),
        "last": node("LTXVSeparateAVLatent", av_latent=["second sample", 1]),
        **saved(["last", 0], ["last", 1], tiled=True),
    }


def from_picture():
    """A picture to video with sound, and guided by another one at its end."""
    sides = {"positive": ["told", 0], "negative": ["told", 1]}
    cropped = node("LTXVCropGuides", positive=["guide", 0], negative=["guide", 1], latent=["made so far", 0])
    return {
        **loaders("ltx-2.3.safetensors"),
        "begun": node("LTXVImgToVideoInplace", vae=["model", 2], image=["seen", 0], latent=["video", 0], strength=0.9, bypass=False),
        "guide": node("LTXVAddGuide", **sides, vae=["model", 2], latent=["begun", 0], image=["seen", 0], frame_idx=-1, strength=0.8),
        "joined": node("LTXVConcatAVLatent", video_latent=["guide", 2], audio_latent=["sound", 0]),
        "guided": node("CFGGuider", model=["model", 0], positive=["guide", 0], negative=["guide", 1], cfg=2.0),
        **sampled("made so far", ["guided", 0], ["joined", 0]),
        "cropped": cropped,
        **saved(["cropped", 2], ["made so far", 1]),
    }


def before_sound():
    """LTX-Video 0.9: a picture to video, by T5."""
    sizes = {"width": SIDE, "height": SIDE, "length": LENGTH, "batch_size": 1, "strength": 1.0}
    told, begun = ({"positive": [name, 0], "negative": [name, 1]} for name in ("told", "begun"))
    path = {"sampler": ["sampler", 0], "sigmas": ["sigmas", 0], "latent_image": ["begun", 2]}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="ltxv-0.9.1.safetensors"),
        "clip": node("CLIPLoader", clip_name="t5.safetensors", type="ltxv", device="default"),
        "positive": node("CLIPTextEncode", text="a cat in the sun", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "told": node("LTXVConditioning", positive=["positive", 0], negative=["negative", 0], frame_rate=float(FPS)),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "begun": node("LTXVImgToVideo", **told, vae=["model", 2], image=["picture", 0], **sizes),
        "sigmas": node("LTXVScheduler", steps=2, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=["begun", 2]),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sample": node("SamplerCustom", model=["model", 0], add_noise=True, noise_seed=5, cfg=2.0, **begun, **path),
        **saved(["sample", 0]),
    }


def heard(run):
    """(samples, rate) of the sound track of the video that *run* saved."""
    import av

    with av.open(io.BytesIO(run.file_bytes())) as container:
        stream = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(stream)), stream.rate


def test_ltx_makes_videos_and_since_2_with_sound(start_server, files):
    flags = ("--fp32-text-enc", "--fp32-unet", "--fp32-vae", "--offline", "--ram-model-cache-mb", "1000")
    server = start_server(*flags, name="ltx", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    with_models(server, files)
    for prompt, scale, rate_hz in ((before_sound(), 1, None), (from_text(), 2, 24000), (from_picture(), 1, 48000)):
        run = server.run(prompt, timeout_s=300)
        frames, rate, seconds = played(run)
        assert len(frames) == LENGTH and rate == FPS and seconds == pytest.approx(LENGTH / FPS, abs=0.02)
        assert frames[0].shape == (scale * SIDE, scale * SIDE, 3) and max(frame.std() for frame in frames) > 2
        if rate_hz is None:
            continue
        samples, hertz = heard(run)
        assert hertz == rate_hz and samples / hertz == pytest.approx(LENGTH / FPS, abs=0.1)
    loaded = {receipt["model"] for receipt in run.history["models"]}
    assert {"audio_vae of ltx-2.3.safetensors", "model of ltx-2.3.safetensors"} <= loaded, loaded
