"""Where tensors that pass between nodes live: the CPU and float32, unless ``--gpu-only`` keeps them on the accelerator."""

from typing import Any

from comfy.cli_args import args
from comfy.lazy_import import lazy_module

model_management = lazy_module("comfy.model_management")
torch = lazy_module("torch")


def intermediate_device() -> Any:
    """The ``torch.device`` of images, masks and latents between nodes. Asks for the accelerator only with ``--gpu-only``."""
    return model_management.get_torch_device() if args.gpu_only else torch.device("cpu")


def intermediate_dtype() -> Any:
    """The dtype of images, masks and latents between nodes."""
    return torch.float32
