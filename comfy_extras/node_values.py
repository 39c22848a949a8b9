"""Types of the values that node functions get and give, for annotations."""

from typing import Any

# The dictionary of a LATENT: "samples" (float tensor batch×channels×height×width) and what belongs to them, as "noise_mask".
Latent = dict[str, Any]

# A CONDITIONING: pairs [encoded text (float tensor batch×tokens×width), dictionary of what else steers sampling].
Conditioning = list[list[Any]]
