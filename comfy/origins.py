"""Which files tensors come from, so that an error about a wrong pair of files can name both. Needs no torch.

What is noted hangs on the tensor object and dies with it; a copy of the tensor has none, and then the error names one file less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_TEXT, _LATENT = "comfy_text_origin", "comfy_latent_origin"
UNKNOWN = "unknown origin"


@dataclass(frozen=True, slots=True)
class LatentOrigin:
    """The file of the diffusion model that made a latent, and whether its latents have a dimension of frames (3) or not (2)."""

    file: str
    dimensions: int


def note_text(states: Any, files: str) -> None:
    """Remember that the text encoder in *files* gave the hidden *states*."""
    setattr(states, _TEXT, files)


def note_latent(latent: Any, model: Any) -> Any:
    """*latent*, after it was noted that *model* (with ``source_name`` and ``latent_format``) made it."""
    file, form = getattr(model, "source_name", None), getattr(model, "latent_format", None)
    if file is not None and form is not None:
        setattr(latent, _LATENT, LatentOrigin(file, form.latent_dimensions))
    return latent


def check_text(states: Any, width: int, model_file: str) -> None:
    """Raise ``ValueError``, which names the files, unless *states* (… x width) are as wide as the diffusion model in *model_file* needs."""
    if states.shape[-1] != width:
        raise ValueError(
            f"{model_file} takes text in {width} numbers per token, but the conditioning has {states.shape[-1]}. It comes from the text "
            f"encoder {getattr(states, _TEXT, UNKNOWN)}; load the one that belongs to the model"
        )


def check_latent(latent: Any, channels: int, dimensions: int, vae_file: str) -> None:
    """Raise ``ValueError``, which names the files, unless *latent* (B x channels x …) is of a kind that the VAE in *vae_file* decodes.

    *dimensions* are those of its latents: 2, or 3 with one of frames.
    """
    origin: LatentOrigin | None = getattr(latent, _LATENT, None)
    made_by = "" if origin is None else f", which {origin.file} made,"
    if latent.shape[1] != channels:
        raise ValueError(
            f"the VAE {vae_file} decodes latents of {channels} channels, but this latent{made_by} has {latent.shape[1]}. Load the VAE that "
            "belongs to the model"
        )
    if origin is not None and origin.dimensions != dimensions:
        kinds = {2: "pictures", 3: "videos (or pictures as their first frames)"}
        raise ValueError(
            f"the VAE {vae_file} decodes latents of {kinds[dimensions]}, but this latent{made_by} is one of "
            f"{kinds.get(origin.dimensions, 'another kind')}. Load the VAE that belongs to the model"
        )
