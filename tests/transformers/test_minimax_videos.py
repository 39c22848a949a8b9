"""MiniMax H3 over HTTP: text, pictures, guides and things that a prompt speaks of make videos with sound that play."""

import io

import pytest
from minimax_files import minimax_file, minimax_text_tensors
from minimax_vae_files import audio_vae_file, vae_file
from picture_prompts import node
from qwen_tokenizer import VOCABULARY, qwen_tokenizer_json
from safetensors.torch import save_file

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
av = pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH, FPS, CONTEXT = 64, 32, 22, 24, 32


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: a network, a text encoder with a tokenizer beside it, both autoencoders."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders/qwen25_tokenizer", "vae"):
        (folder / kind).mkdir(parents=True)
    minimax_file(folder / "diffusion_models" / "h3.safetensors", context=CONTEXT, curve=9)
    (folder / "text_encoders" / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    save_file(minimax_text_tensors(width=CONTEXT, vocabulary=VOCABULARY), folder / "text_encoders" / "qwen3vl.safetensors")
    vae_file(folder / "vae" / "video.safetensors")
    audio_vae_file(folder / "vae" / "audio.safetensors")
    return folder


def with_models(server, files):
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


def workflow(conditioning, latent, **more):
    """The official workflow's sampler and what follows, for a conditioning and a latent."""
    return {
        "model": node("UNETLoader", unet_name="h3.safetensors", weight_dtype="default"),
        "clip": node("CLIPLoader", clip_name="qwen3vl.safetensors", type="minimax", device="default"),
        "vae": node("VAELoader", vae_name="video.safetensors"),
        "audio_vae": node("VAELoader", vae_name="audio.safetensors"),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "shifted": node("MiniMaxH3SigmaShift", model=["model", 0], shift_video=9.0, shift_audio=4.0),
        "guider": node("BasicGuider", model=["shifted", 0], conditioning=conditioning),
        "noise": node("RandomNoise", noise_seed=7),
        "steps": node("BasicScheduler", model=["shifted", 0], scheduler="simple", steps=2, denoise=1.0),
        "sampler": node("KSamplerSelect", sampler_name="res_multistep"),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["sampler", 0],
            sigmas=["steps", 0],
            latent_image=latent,
        ),
        "frames": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "sound": node("VAEDecodeAudio", samples=["sample", 0], vae=["audio_vae", 0]),
        "video": node("CreateVideo", images=["frames", 0], audio=["sound", 0], fps=FPS),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="video/made", format="auto", **{"format.codec": "auto"}),
        **more,
    }


SIZE = {"width": WIDTH, "height": HEIGHT, "length": LENGTH}
TEXT = {"clip": ["clip", 0], "vae": ["vae", 0], "prompt": "a user of <Picture 1>", **SIZE}


def from_text():
    """A prompt alone."""
    return workflow(["made", 0], ["made", 1], made=node("MiniMaxH3ImageToVideo", **TEXT))


def from_picture():
    """A picture that the video begins with."""
    return workflow(["made", 0], ["made", 1], made=node("MiniMaxH3ImageToVideo", **TEXT, first_frame=["picture", 0]))


def from_shown():
    """A picture, and the sound and the frames of a video made before, that the prompt speaks of, and a picture at a frame."""
    shown = {"audio_vae": ["audio_vae", 0], "ref_image_size": "match", "ref_images.ref_image_0": ["picture", 0]}
    shown |= {"ref_videos.ref_video_0": ["film", 0], "ref_video_audios.ref_video_audio_0": ["quiet", 0]}
    return workflow(
        ["guided", 0],
        ["made", 1],
        film=node("EmptyImage", width=64, height=32, batch_size=6, color=0x993366),
        quiet=node("EmptyAudio", duration=0.3, sample_rate=32000, channels=2),
        made=node("MiniMaxH3ReferenceToVideo", **TEXT, **shown),
        guided=node("MiniMaxH3AddGuide", positive=["made", 0], latent=["made", 1], vae=["vae", 0], image=["picture", 0], frame_idx=-1),
    )


def test_every_workflow_makes_a_video_with_sound(start_server, files):
    flags = ("--fp32-text-enc", "--offline", "--ram-model-cache-mb", "1000")
    server = with_models(start_server(*flags, name="minimax", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300), files)
    made = []
    for prompt in (from_text(), from_picture(), from_shown()):
        run = server.run(prompt, timeout_s=300)
        assert run.history["status"]["status_str"] == "success", run.history["status"]
        with av.open(io.BytesIO(run.file_bytes())) as container:
            (video,), (audio,) = container.streams.video, container.streams.audio
            assert video.average_rate == FPS and audio.rate == 32000 and audio.channels == 2
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        with av.open(io.BytesIO(run.file_bytes())) as container:
            heard = sum(frame.samples for frame in container.decode(audio=0))
        assert len(frames) == LENGTH and frames[0].shape == (HEIGHT, WIDTH, 3) and max(frame.std() for frame in frames) > 2
        assert heard / 32000 == pytest.approx(LENGTH / FPS, abs=0.05)
        made.append(b"".join(frame.tobytes() for frame in frames))
    assert len(set(made)) == 3
