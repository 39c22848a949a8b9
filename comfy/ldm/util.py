"""Small questions and constructors that model code of the original Stable Diffusion imports from here."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch

from comfy.ldm.modules.attention import default, exists
from comfy.ldm.modules.diffusionmodules.util import mean_flat

__all__ = ["count_params", "default", "exists", "get_obj_from_str", "instantiate_from_config", "isimage", "ismap", "mean_flat"]


def ismap(x: Any) -> bool:
    """Whether *x* is a batch of more than three channels."""
    return isinstance(x, torch.Tensor) and x.ndim == 4 and x.shape[1] > 3


def isimage(x: Any) -> bool:
    """Whether *x* is a batch of grey or colour pictures, channels first."""
    return isinstance(x, torch.Tensor) and x.ndim == 4 and x.shape[1] in (1, 3)


def count_params(model: torch.nn.Module, verbose: bool = False) -> int:
    """The number of values in the parameters of *model*; *verbose* also prints it."""
    total = sum(parameter.numel() for parameter in model.parameters())
    if verbose:
        print(f"{type(model).__name__}: {total / 1e6:.2f} million parameters")
    return total


def get_obj_from_str(string: str, reload: bool = False) -> Any:
    """What the dotted name *string* ("package.module.Class") stands for. Raises ``ImportError`` or ``AttributeError``."""
    module_name, _, name = string.rpartition(".")
    module = importlib.import_module(module_name)
    return getattr(importlib.reload(module) if reload else module, name)


def instantiate_from_config(config: Mapping[str, Any]) -> Any:
    """An object of the class that ``config["target"]`` names, made with ``config["params"]``. Raises ``KeyError`` without a target."""
    return get_obj_from_str(config["target"])(**config.get("params", {}))
