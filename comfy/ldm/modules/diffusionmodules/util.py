"""Names that node packs import from here; each lives where it is used."""

from comfy.families.timestep_embedding import timestep_embedding
from comfy.model_sampling import make_beta_schedule

__all__ = ["make_beta_schedule", "timestep_embedding"]
