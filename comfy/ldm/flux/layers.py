"""Names of Flux models that node packs import; see :mod:`comfy.placeholders`."""

import torch

import comfy.families.timestep_embedding
from comfy.placeholders import placeholders
from comfy.rmsnorm import RMSNorm

__all__ = ["RMSNorm", "timestep_embedding"]

__getattr__, __dir__ = placeholders(
    __name__,
    "Flux models",
    "EmbedND MLPEmbedder YakMLP build_mlp() QKNorm SelfAttention ModulationOut:object Modulation apply_mod() "
    "SiLUActivation DoubleStreamBlock SingleStreamBlock LastLayer",
)


def timestep_embedding(t: torch.Tensor, dim: int, max_period: int = 10000, time_factor: float = 1000.0) -> torch.Tensor:
    """Sines and cosines of times *t* (one per batch entry, 0…1 scaled by *time_factor*): batch x *dim*, in *t*'s dtype."""
    return comfy.families.timestep_embedding.timestep_embedding(time_factor * t, dim, max_period).to(t)
