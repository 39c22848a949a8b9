"""Loads upscaling models under the name that older packs import; the ``spandrel`` package builds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.lazy_import import lazy_module

spandrel = lazy_module("spandrel")


def load_state_dict(state_dict: Mapping[str, Any]) -> Any:
    """Build the upscaling model whose weights are in *state_dict*, ready for use.

    Raises ``RuntimeError`` if the optional ``spandrel`` package is missing, and spandrel's own errors for unknown models.
    """
    try:
        loader = spandrel.ModelLoader()
    except ImportError as error:
        raise RuntimeError(
            "upscaling models need the spandrel package, which is not installed: pip install -c constraints.txt spandrel"
        ) from error
    return loader.load_from_state_dict(state_dict).eval()
