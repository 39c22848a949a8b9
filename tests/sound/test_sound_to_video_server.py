"""Sound to video over HTTP: Wan's S2V, going on once, and HuMo make videos that play, with the sound they were made from."""

import io
import wave

import pytest
import text_encoder_files
import torch
from picture_prompts import node
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from video_prompts import sampled
from wan_files import wan_file
from wan_vae_files import wan_vae_file

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
av = pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH, FPS = 64, 64, 5, 16  # the frames before are seen in patches of up to 64 pixels
CONTEXT, HEARD = text_encoder_files.T5_WIDTH, 128
EARS = {"hidden_size": HEARD, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_dim": (16,) * 7}
WHISPER = {"d_model": 64, "encoder_ffn_dim": 32, "encoder_layers": 32, "encoder_attention_heads": 1, "num_mel_bins": 128}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: both networks, a text encoder with its tokenizer, an autoencoder, both audio encoders."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "text_encoders", "vae", "audio_encoders"):
        (folder / kind).mkdir()
    wan_file(folder / "diffusion_models" / "s2v.safetensors", "s2v", context=CONTEXT, heard=HEARD, layers=3)
    wan_file(folder / "diffusion_models" / "humo.safetensors", "humo", context=CONTEXT, heard=8 * 5 * WHISPER["d_model"], channels=36)
    encoder = text_encoder_files.text_model("umt5xxl")
    encoder["tokenizer_json"] = torch.frombuffer(bytearray(text_encoder_files.tokenizer_json(), "utf-8"), dtype=torch.uint8)
    save_file(encoder, folder / "text_encoders" / "umt5.safetensors")
    wan_vae_file(folder / "vae" / "wan.safetensors")
    torch.manual_seed(4)
    ears = Wav2Vec2Model(Wav2Vec2Config(**EARS, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True))
    save_file(dict(ears.state_dict()), folder / "audio_encoders" / "ears.safetensors")
    whisper = WhisperEncoder(WhisperConfig(**WHISPER)).state_dict()
    save_file({f"model.encoder.{name}": value for name, value in whisper.items()}, folder / "audio_encoders" / "whisper.safetensors")
    return folder


def write_tone(path):
    """A second of mono in a WAV file."""
    tone = (torch.sin(torch.arange(16000) * 0.1) * 8000).to(torch.int16)
    with wave.open(str(path), "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(16000)
        output.writeframes(tone.numpy().tobytes())


def loaders(network, encoder):
    """The loaders of a workflow, its texts, a picture, and what is heard."""
    return {
        "clip": node("CLIPLoader", clip_name="umt5.safetensors", type="wan", device="default"),
        "vae": node("VAELoader", vae_name="wan.safetensors"),
        "positive": node("CLIPTextEncode", text="a user in the rain", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "sound": node("LoadAudio", audio="tone.wav"),
        "encoder": node("AudioEncoderLoader", audio_encoder_name=f"{encoder}.safetensors"),
        "heard": node("AudioEncoderEncode", audio_encoder=["encoder", 0], audio=["sound", 0]),
        "network": node("UNETLoader", unet_name=f"{network}.safetensors", weight_dtype="default"),
        "shifted": node("ModelSamplingSD3", model=["network", 0], shift=8.0),
    }


def seen_and_heard(kind, **more):
    """The node of *kind*, from all of these."""
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]}
    return node(kind, **sides, length=LENGTH, audio_encoder_output=["heard", 0], ref_image=["picture", 0], **more)


def saved(latent):
    """Nodes that decode *latent* and save a video with the sound."""
    return {
        "decode": node("VAEDecode", samples=latent, vae=["vae", 0]),
        "video": node("CreateVideo", images=["decode", 0], audio=["sound", 0], fps=FPS),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="video/heard", format="auto", **{"format.codec": "auto"}),
    }


def told(name):
    return ["shifted", 0], [name, 0], [name, 1], [name, 2]


def s2v():
    """A video, and what comes after it, as one."""
    sizes = {"width": WIDTH, "height": HEIGHT, "batch_size": 1}
    return {
        **loaders("s2v", "ears"),
        "begun": seen_and_heard("WanSoundImageToVideo", **sizes),
        "first": sampled(*told("begun")),
        "further": seen_and_heard("WanSoundImageToVideoExtend", video_latent=["first", 0]),
        "second": sampled(*told("further")),
        "joined": node("LatentConcat", samples1=["first", 0], samples2=["second", 0], dim="t"),
        **saved(["joined", 0]),
    }


def humo():
    """A video of HuMo."""
    sizes = {"width": WIDTH, "height": HEIGHT, "batch_size": 1}
    made = {"made": seen_and_heard("WanHuMoImageToVideo", **sizes), "sample": sampled(*told("made"))}
    return {**loaders("humo", "whisper"), **made, **saved(["sample", 0])}


def frames_and_sound(run):
    """The numbers of frames and of samples, and frames per second, of the video that *run* saved."""
    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with av.open(io.BytesIO(run.file_bytes())) as container:
        rate = float(container.streams.video[0].average_rate)
        counts = {"video": 0, "audio": 0}
        for frame in container.decode(container.streams.video[0], container.streams.audio[0]):
            counts["video" if isinstance(frame, av.VideoFrame) else "audio"] += 1 if isinstance(frame, av.VideoFrame) else frame.samples
        return counts["video"], counts["audio"], rate


def test_sound_makes_videos_that_play(start_server, files):
    server = start_server("--fp32-text-enc", "--offline", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    write_tone(server.base / "input" / "tone.wav")
    for prompt, frames in ((s2v(), 4 * 4 - 3), (humo(), LENGTH)):
        count, samples, rate = frames_and_sound(server.run(prompt, timeout_s=300))
        assert (count, rate) == (frames, FPS) and samples > 0
