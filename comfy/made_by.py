"""Which file made a latent or a conditioning, for errors about pairs that do not fit.

That is kept on the tensor object, so it is lost when something is computed with it. Needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ATTRIBUTE = "made_by_file"


def mark(tensor: Tensor, file: str) -> Tensor:
    """*tensor*, marked as made by the model in *file* ("": unknown, which leaves it as it is)."""
    if file:
        setattr(tensor, ATTRIBUTE, file)
    return tensor


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


def check_context(context: Tensor, width: int | None, user: str) -> None:
    """Raise ``ValueError`` unless the last dimension of *context* is the *width* that *user* takes (None: any)."""
    if width is not None and context.shape[-1] != width:
        raise ValueError(
            f"{user} takes texts encoded to {width} values per token, but the conditioning has {context.shape[-1]}{said(context)}: they "
            "are of different families. Load the text encoder of the diffusion model's family, with its type in the loader"
        )
