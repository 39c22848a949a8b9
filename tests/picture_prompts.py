"""The text-to-picture prompt, in the API's format, that tests and benchmarks run."""

from typing import Any


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


def text_to_picture(
    checkpoint: str,
    seed: int,
    positive: str,
    negative: str = "",
    *,
    size: int = 64,
    steps: int = 2,
    cfg: float = 4.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    prefix: str = "picture",
) -> dict[str, dict[str, Any]]:
    """From the file name *checkpoint* and two texts to one saved picture of *size* × *size* pixels; nodes are named after their part."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", text=positive, clip=["model", 1]),
        "negative": node("CLIPTextEncode", text=negative, clip=["model", 1]),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=1),
        "sample": node(
            "KSampler",
            model=["model", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name=sampler,
            scheduler=scheduler,
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=prefix),
    }


def from_parts(model, clip, vae, seed=5, **between):
    """Text to picture by the diffusion model and the autoencoder of these names and the node *clip*, as the official templates do it.

    Of the nodes *between*, each put between the model and the sampler, the last one is sampled with.
    """
    return {
        "model": node("UNETLoader", unet_name=f"{model}.safetensors", weight_dtype="default"),
        "clip": clip,
        "vae": node("VAELoader", vae_name=f"{vae}.safetensors"),
        **between,
        "positive": node("CLIPTextEncode", text="a user in the rain", clip=["clip", 0]),
        "negative": node("CLIPTextEncode", text="", clip=["clip", 0]),
        "latent": node("EmptyLatentImage", width=64, height=48, batch_size=1),
        "sample": node(
            "KSampler",
            model=[next(reversed(between), "model"), 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=seed,
            steps=2,
            cfg=2.5,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="picture"),
    }
