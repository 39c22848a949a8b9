"""Types of the values that node functions take and return, for annotations."""

from typing import Any

# The dictionary of a LATENT: "samples" (float tensor batch×channels×height×width) and data about them, such as "noise_mask".
Latent = dict[str, Any]

# A CONDITIONING: pairs [encoded text (float tensor batch×tokens×width), dictionary of further values that steer sampling].
Conditioning = list[list[Any]]
