"""Which file made a latent or a conditioning, for errors about pairs that do not fit.

That is kept on the tensor object, so it is lost when something is computed with it. Needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ATTRIBUTE, DIMENSIONS = "made_by_file", "made_with_dimensions"
KINDS = {1: "sound", 2: "pictures", 3: "videos, or of pictures as their first frames"}


def mark(tensor: Tensor, file: str) -> Tensor:
    """*tensor*, marked as made by the model in *file* ("": unknown, which leaves it as it is)."""
    if file:
        setattr(tensor, ATTRIBUTE, file)
    return tensor


def mark_latent(latent: Tensor, model: Any) -> Tensor:
    """*latent*, marked as made by the diffusion model *model*, and with the dimensions of such latents."""
    dimensions = getattr(getattr(model, "latent_format", None), "latent_dimensions", None)
    if dimensions is not None:
        setattr(latent, DIMENSIONS, dimensions)
    return mark(latent, getattr(model, "source_name", ""))


def carry(source: Tensor, copy: Tensor) -> Tensor:
    """*copy*, which has the values of *source* on another device or in another dtype, with the notes that *source* has."""
    for name in (ATTRIBUTE, DIMENSIONS):
        if hasattr(source, name):
            setattr(copy, name, getattr(source, name))
    return copy


def said(tensor: Tensor) -> str:
    """Words for an error: " (made by …)", or nothing where it is not known."""
    file = getattr(tensor, ATTRIBUTE, "")
    return f" (made by {file})" if file else ""


def check_latent(latent: Tensor, channels: int, user: str) -> None:
    """Raise ``ValueError`` unless *latent* (batch x channels x …) has the *channels* that *user* (a model and its file) works on."""
    if latent.ndim > 1 and latent.shape[1] != channels:
        raise ValueError(
            f"{user} works on latents of {channels} channels, but was given one of {latent.shape[1]}{said(latent)}: they are of different "
            "families. Use the VAE that belongs to the diffusion model, and an empty latent made for it"
        )


def check_dimensions(latent: Tensor, dimensions: int, user: str) -> None:
    """Raise ``ValueError`` if *latent* was made by a model whose latents have other *dimensions* than *user*'s: 2, or 3 with frames."""
    own = getattr(latent, DIMENSIONS, dimensions)
    if own != dimensions and {own, dimensions} <= KINDS.keys():
        raise ValueError(
            f"{user} works on latents of {KINDS[dimensions]}, but was given one of {KINDS[own]}{said(latent)}: they are of different "
            "families. Use the VAE that belongs to the diffusion model"
        )


def check_context(context: Tensor, width: int | None, user: str) -> None:
    """Raise ``ValueError`` unless the last dimension of *context* is the *width* that *user* takes (None: any)."""
    if width is not None and context.shape[-1] != width:
        raise ValueError(
            f"{user} takes texts encoded to {width} values per token, but the conditioning has {context.shape[-1]}{said(context)}: they "
            "are of different families. Load the text encoder of the diffusion model's family, with its type in the loader"
        )
