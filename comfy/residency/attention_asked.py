"""Which kernel of attention the flags ask for, told without importing torch or the package that has it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from argparse import Namespace

# flag -> (name under which the function is registered, package that has it, "" for torch, name of the package for pip)
FLAGS = {
    "use_sage_attention": ("sage", "sageattention", "sageattention"),
    "use_flash_attention": ("flash", "flash_attn", "flash-attn"),
    "use_ck_attention": ("comfy_kitchen_int8", "comfy_kitchen", "comfy-kitchen"),
    "use_pytorch_cross_attention": ("pytorch", "", ""),
    "use_split_cross_attention": ("split", "", ""),
    "use_quad_cross_attention": ("sub_quad", "", ""),
}
IN_PARTS = ("split", "sub_quad")


def asked_attention(args: Namespace) -> str | None:
    """The name of the attention that a flag asks for; None without such a flag."""
    return next((name for flag, (name, _, _) in FLAGS.items() if getattr(args, flag, False)), None)


def missing_package(args: Namespace) -> str | None:
    """What to do, in words, when the package of the attention that was asked for is not installed; None when all is there."""
    for flag, (_, module, package) in FLAGS.items():
        if module and getattr(args, flag, False) and importlib.util.find_spec(module) is None:
            return f"--{flag.replace('_', '-')} needs the package {package}: install it (pip install {package}), or leave the flag out"
    return None


def may_have_int8_attention() -> bool:
    """Whether comfy-kitchen's attention in 8 bits may be on this machine: torch was built for CUDA, and the package is installed."""
    try:
        built_for = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return "+cu" in built_for and importlib.util.find_spec("comfy_kitchen") is not None
