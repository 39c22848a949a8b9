"""What the engine is asked to do on cards: {name: case}. Each case returns anything with tensors in it."""

from cases import conditioning, networks, pictures, sampling, weights  # noqa: F401 - they enter their cases
from cases.registry import CASES, Case

__all__ = ["CASES", "Case"]
