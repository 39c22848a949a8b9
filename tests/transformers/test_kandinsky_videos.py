"""HunyuanVideo 1, Kandinsky 5 and Stable Video Diffusion over HTTP: texts and pictures make videos that play, and a picture."""

import pytest
from hunyuan_files import first_file, first_vae_file
from image_family_files import llama_tensors
from kandinsky_files import kandinsky_file
from picture_prompts import node
from qwen_tokenizer import LLAMA_VOCABULARY, VOCABULARY, llama_tokenizer_json, qwen_tokenizer_json
from safetensors.torch import save_file
from svd_files import svd_file
from text_encoder_files import CLIP_WIDTH, text_model
from transformer_files import qwen_text_tensors
from video_prompts import FPS, played, sampled, saved

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
pytest.importorskip("av")

WIDTH, HEIGHT, LENGTH, CONTEXT = 64, 48, 9, 32
SIZES = {"width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models: networks, text encoders with their tokenizers beside them, autoencoders."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("checkpoints", "diffusion_models", "text_encoders/qwen25_tokenizer", "text_encoders/llama_tokenizer", "vae"):
        (folder / kind).mkdir(parents=True)
    sizes = {"context": CONTEXT, "pooled": CLIP_WIDTH}
    first_file(folder / "diffusion_models" / "hunyuan.safetensors", **sizes)
    kandinsky_file(folder / "diffusion_models" / "video.safetensors", **sizes)
    kandinsky_file(folder / "diffusion_models" / "picture.safetensors", picture=True, **sizes)
    encoders = folder / "text_encoders"
    (encoders / "qwen25_tokenizer" / "tokenizer.json").write_text(qwen_tokenizer_json(), encoding="utf-8")
    (encoders / "llama_tokenizer" / "tokenizer.json").write_text(llama_tokenizer_json(), encoding="utf-8")
    save_file(qwen_text_tensors(vocabulary=VOCABULARY, width=CONTEXT), encoders / "qwen25.safetensors")
    save_file(llama_tensors(vocabulary=LLAMA_VOCABULARY, width=CONTEXT), encoders / "llama.safetensors")
    save_file(text_model("clip_l"), encoders / "clip_l.safetensors")
    first_vae_file(folder / "vae" / "video.safetensors")
    svd_file(folder / "checkpoints" / "svd.safetensors")
    return folder


def with_models(server, files):
    for kind in files.iterdir():
        place = server.base / "models" / kind.name
        place.mkdir(parents=True, exist_ok=True)
        for file in kind.iterdir():
            (place / file.name).symlink_to(file)
    return server


def loaders(model, text, kind, shift):
    """The loaders of a workflow, its texts, and a picture."""
    return {
        "model": node("UNETLoader", unet_name=f"{model}.safetensors", weight_dtype="default"),
        "shifted": node("ModelSamplingSD3", model=["model", 0], shift=shift),
        "clip": node("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2=f"{text}.safetensors", type=kind),
        "vae": node("VAELoader", vae_name="video.safetensors"),
        "positive": node("CLIPTextEncode", text="a user walks", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
    }


def hunyuan():
    """Text to video, guided by one prompt as the template does, decoded in tiles."""
    made = saved(["sample", 0], ["vae", 0])
    made["decode"] = node(
        "VAEDecodeTiled", samples=["sample", 0], vae=["vae", 0], tile_size=64, overlap=16, temporal_size=64, temporal_overlap=8
    )
    return {
        **loaders("hunyuan", "llama", "hunyuan_video", 7.0),
        "guided": node("FluxGuidance", conditioning=["positive", 0], guidance=6.0),
        "guider": node("BasicGuider", model=["shifted", 0], conditioning=["guided", 0]),
        "noise": node("RandomNoise", noise_seed=1),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "levels": node("BasicScheduler", model=["shifted", 0], scheduler="simple", steps=2, denoise=1.0),
        "latent": node("EmptyHunyuanLatentVideo", **SIZES),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["sampler", 0],
            sigmas=["levels", 0],
            latent_image=["latent", 0],
        ),
        **made,
    }


def hunyuan_from_picture():
    """A video whose first frame is given."""
    begun = node(
        "HunyuanImageToVideo", positive=["positive", 0], vae=["vae", 0], guidance_type="v2 (replace)", start_image=["picture", 0], **SIZES
    )
    sample = sampled(["shifted", 0], ["begun", 0], ["negative", 0], ["begun", 1], cfg=1.0)
    return {**loaders("hunyuan", "llama", "hunyuan_video", 7.0), "begun": begun, "sample": sample, **saved(["sample", 0], ["vae", 0])}


def kandinsky(**picture):
    """Text to video; with a picture the first latent frame is put in and likened to the rest, as the template does."""
    sides = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0]}
    parts = {
        **loaders("video", "qwen25", "kandinsky5", 5.0),
        "begun": node("Kandinsky5ImageToVideo", **sides, **SIZES, **picture),
        "sample": sampled(["shifted", 0], ["begun", 0], ["begun", 1], ["begun", 2], sampler_name="euler_ancestral", scheduler="beta"),
    }
    if not picture:
        return {**parts, **saved(["sample", 0], ["vae", 0])}
    return {
        **parts,
        "put": node("ReplaceVideoLatentFrames", destination=["sample", 0], source=["begun", 3], index=0),
        "likened": node("NormalizeVideoLatentStart", latent=["put", 0], start_frame_count=1, reference_frame_count=2),
        **saved(["likened", 0], ["vae", 0]),
    }


def frames_of_a_picture():
    """A picture to video with Stable Video Diffusion, whose guidance grows from frame to frame."""
    told = {"width": WIDTH, "height": HEIGHT, "video_frames": LENGTH, "motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0}
    parts = {"clip_vision": ["model", 1], "init_image": ["picture", 0], "vae": ["model", 2]}
    settings = {"sampler_name": "uni_pc_bh2", "scheduler": "normal"}
    return {
        "model": node("ImageOnlyCheckpointLoader", ckpt_name="svd.safetensors"),
        "picture": node("EmptyImage", width=80, height=48, batch_size=1, color=0x336699),
        "begun": node("SVD_img2vid_Conditioning", **parts, **told),
        "guided": node("VideoLinearCFGGuidance", model=["model", 0], min_cfg=1.0),
        "sample": sampled(["guided", 0], ["begun", 0], ["begun", 1], ["begun", 2], **settings),
        **saved(["sample", 0], ["model", 2]),
    }


def test_every_workflow_makes_a_video_that_plays(start_server, files):
    flags = ("--fp32-text-enc", "--offline", "--ram-model-cache-mb", "1000")
    server = start_server(*flags, name="kandinsky", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300)
    with_models(server, files)
    made = []
    texts = (hunyuan(), hunyuan_from_picture(), kandinsky(), kandinsky(start_image=["picture", 0]))
    for prompt in (*texts, frames_of_a_picture()):
        run = server.run(prompt, timeout_s=300)
        frames, rate, seconds = played(run)
        assert len(frames) == LENGTH and rate == FPS and seconds == pytest.approx(LENGTH / FPS, abs=0.02)
        assert frames[0].shape == (HEIGHT, WIDTH, 3) and max(frame.std() for frame in frames) > 2
        made.append(b"".join(frame.tobytes() for frame in frames))
    assert len(set(made)) == 5
    picture = {
        **loaders("picture", "qwen25", "kandinsky5_image", 3.0),
        "latent": node("EmptyLatentImage", width=WIDTH, height=HEIGHT, batch_size=1),
        "sample": sampled(["shifted", 0], ["positive", 0], ["negative", 0], ["latent", 0], cfg=3.5),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="latents/made"),
    }
    run = server.run({name: one for name, one in picture.items() if name not in ("vae", "picture")}, timeout_s=300)
    assert run.history["status"]["status_str"] == "success"
