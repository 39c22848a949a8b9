"""Flags that choose how networks are computed: kernels of attention, its precision, and trade-offs for speed."""

import argparse
import enum

ATTENTION_KINDS = (
    ("split-cross-attention", "compute attention in parts of as many queries as memory allows"),
    ("quad-cross-attention", "compute attention in small parts of queries and keys"),
    ("pytorch-cross-attention", "compute attention by torch's fused kernels (the default)"),
    ("sage-attention", "compute attention by the package sageattention, where its kernels can"),
    ("flash-attention", "compute attention by the package flash-attn, where its kernels can"),
    ("ck-attention", "compute attention in 8 bits by comfy-kitchen, on cards it has kernels for"),
)


class PerformanceFeature(enum.Enum):
    """What ``--fast`` can switch on."""

    Fp16Accumulation = "fp16_accumulation"
    Fp8MatrixMultiplication = "fp8_matrix_mult"
    CublasOps = "cublas_ops"
    AutoTune = "autotune"


def attention(group: argparse._ArgumentGroup) -> None:
    """attention"""
    for flag, meaning in (
        *((f"--use-{kind}", meaning) for kind, meaning in ATTENTION_KINDS),
        ("--disable-xformers", "accepted; xformers is not used"),
        ("--force-upcast-attention", "compute attention of half precision (fp16) in float32"),
        ("--dont-upcast-attention", "never raise attention's precision"),
    ):
        group.add_argument(flag, action="store_true", help=meaning)
    group.add_argument(
        "--fast",
        nargs="*",
        type=PerformanceFeature,
        metavar="FEATURE",
        help="fp16_accumulation: on cards prefer half precision and add up in it, faster and less exact; fp8_matrix_mult: multiply weights "
        "in plain fp8 as fp8; autotune: on cards try convolutions' algorithms out at each new size (bare: all); cublas_ops has no effect",
    )
