"""Noise on what an image encoder saw, as unCLIP models take it: the more noise, the more freely they draw."""

from collections.abc import Mapping
from typing import Any

import torch

from comfy.beta_schedules import make_beta_schedule
from comfy.families.timestep_embedding import Timestep

SDXL_POOLED = 1280  # values of the pooled text of SDXL
UNCLIP_SEED_OFFSET = 10  # noise on pictures is that of another seed than the latent's
USUAL_SCHEDULE = {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


class CLIPEmbeddingNoiseAugmentation(torch.nn.Module):
    """Adds the noise of one of *max_noise_level* levels to picture embeddings of *timestep_dim* values, and embeds the level.

    *noise_schedule_config*: ``timesteps`` and ``beta_schedule``, see :func:`comfy.beta_schedules.make_beta_schedule`.
    """

    kept: torch.Tensor

    def __init__(self, noise_schedule_config: dict[str, Any], max_noise_level: int = 1000, timestep_dim: int = 256) -> None:
        super().__init__()
        config = dict(noise_schedule_config)
        betas = make_beta_schedule(config.pop("beta_schedule", "linear"), config.pop("timesteps", 1000), **config)
        self.register_buffer("kept", (1 - betas).cumprod(0).float(), persistent=False)  # of a picture's variance, at each level
        self.max_noise_level = max_noise_level
        self.time_embed = Timestep(timestep_dim)

    def forward(
        self, x: torch.Tensor, noise_level: torch.Tensor | None = None, seed: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(noisy *x*, embedding of the level), each B x timestep_dim; without *noise_level* (B, integers) levels are drawn.

        Noise is drawn on the host, with *seed* where there is one.
        """
        if noise_level is None:
            noise_level = torch.randint(0, self.max_noise_level, (len(x),), device=x.device)
        numbers = None if seed is None else torch.Generator().manual_seed(seed)
        noise = torch.randn(x.shape, dtype=x.dtype, generator=numbers).to(x.device)
        kept = self.kept.to(x.device)[noise_level][:, None]
        return kept.sqrt() * x + (1 - kept).sqrt() * noise, self.time_embed(noise_level)


def unclip_adm(
    unclip_conditioning: list[dict[str, Any]],
    device: torch.device,
    noise_augmentor: CLIPEmbeddingNoiseAugmentation,
    noise_augment_merge: float = 0.0,
    seed: int | None = None,
) -> torch.Tensor:
    """The vector conditioning (1 x (2 · timestep_dim)) of what was seen: noisy embeddings and their levels, of several pictures merged.

    Each of *unclip_conditioning* has "clip_vision_output", "strength" and "noise_augmentation" (0…1); the sum of several gets noise once
    more, *noise_augment_merge* of it (in ComfyUI that of no seed).
    """
    parts = []
    for seen in unclip_conditioning:
        for embedding in seen["clip_vision_output"].image_embeds:
            noisy = _noisy(noise_augmentor, embedding[None].to(device, torch.float32), seen["noise_augmentation"], seed)
            parts.append(noisy * seen["strength"])
    if len(parts) == 1:
        return parts[0]
    merged = torch.stack(parts).sum(0)[:, : parts[0].shape[1] // 2]  # without the levels
    return _noisy(noise_augmentor, merged, noise_augment_merge, seed)


def _noisy(augmentor: CLIPEmbeddingNoiseAugmentation, embedding: torch.Tensor, amount: float, seed: int | None) -> torch.Tensor:
    level = torch.tensor([round((augmentor.max_noise_level - 1) * amount)], device=embedding.device)
    return torch.cat(augmentor(embedding, noise_level=level, seed=seed), dim=1)


def sdxl_pooled(args: Mapping[str, Any], noise_augmentor: Any = None) -> torch.Tensor:
    """The pooled text of the sampler's arguments *args*, or what was seen of pictures in its place: B x 1280.

    *noise_augmentor*: what makes the latter noisy; None for SDXL's own.
    """
    if "unclip_conditioning" not in args:
        return args["pooled_output"]
    augmentor = noise_augmentor or CLIPEmbeddingNoiseAugmentation(USUAL_SCHEDULE, timestep_dim=SDXL_POOLED)
    seed = (args.get("seed") or 0) - UNCLIP_SEED_OFFSET
    return unclip_adm(args["unclip_conditioning"], args["device"], augmentor, seed=seed)[:, :SDXL_POOLED]
