"""Parts of prompts that make videos, and what the videos that come of them are, told by decoding them."""

import io

from picture_prompts import node

FPS = 8


def sampled(model, positive, negative, latent, seed=5, **changed):
    """A sampler of two steps with two prompts."""
    settings = {"seed": seed, "steps": 2, "cfg": 2.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return node("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **{**settings, **changed})


def in_two(high, low, positive, negative, latent, seed=5):
    """Two samplers, of which the first does the noisier half of two steps and the second the other: nodes by name, ``sample`` the last."""
    shared = {"noise_seed": seed, "steps": 2, "cfg": 2.5, "sampler_name": "euler", "scheduler": "simple"}
    sides = {"positive": positive, "negative": negative, **shared}
    ends = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "enable"}
    begins = {"add_noise": "disable", "start_at_step": 1, "end_at_step": 10000, "return_with_leftover_noise": "disable"}
    return {
        "noisy": node("KSamplerAdvanced", model=high, latent_image=latent, **sides, **ends),
        "sample": node("KSamplerAdvanced", model=low, latent_image=["noisy", 0], **sides, **begins),
    }


def saved(latent, vae):
    """Nodes that decode *latent* and save a video; ``save`` is the last."""
    return {
        "decode": node("VAEDecode", samples=latent, vae=vae),
        "video": node("CreateVideo", images=["decode", 0], fps=FPS),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="video/made", format="auto", **{"format.codec": "auto"}),
    }


def played(run):
    """The frames (arrays of bytes) of the video that *run* saved, its frames per second, and its seconds."""
    import av

    assert run.history["status"]["status_str"] == "success", run.history["status"]
    with av.open(io.BytesIO(run.file_bytes())) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate), float(stream.duration * stream.time_base)
