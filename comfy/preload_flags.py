"""The flags of preloading, which the pack ``custom_nodes/keepwarm`` reads."""

import argparse


def preloading(group: argparse._ArgumentGroup) -> None:
    """preloading"""
    add = group.add_argument
    add(
        "--preload-config",
        default=None,
        metavar="FILE",
        help="read the models that this JSON file names before the port answers, and hold them",
    )
    add("--preload-check", action="store_true", help="say what the preload config would load, and end")
    add("--preload-only", action="store_true", help="load what the preload config names, and end; the status is 0 if all of it is held")
    add(
        "--save-preload-config",
        metavar="FILE",
        help="write a preload config of the models that prompts used since the start, most time saved first and within the cache's size; "
        "while the server runs, and at its end",
    )
    add(
        "--warmup-prompt",
        metavar="FILE",
        help="run this workflow (as the page saves it, or in API format) once before the port answers, and throw away what it makes",
    )
    add(
        "--snapshot-start",
        type=_capability,
        nargs="?",
        const=8.9,
        metavar="CAPABILITY",
        help="for memory snapshots: load what the preload config names and touch no accelerator before POST /keepwarm/restored or SIGUSR1; "
        "models are built for an NVIDIA card of this compute capability (bare: 8.9), and read again if another device is found",
    )
    add(
        "--cache-managers",
        choices=("first", "all"),
        default="first",
        metavar="first|all",
        help="with --multi-user: who may load, hold and drop models through the pack's routes, the first user or all (default: first)",
    )


def _capability(value: str) -> float:
    if not value.replace(".", "", 1).isdecimal() or float(value) < 8:
        raise argparse.ArgumentTypeError(f"{value!r} is not a compute capability from 8.0 on, such as 8.6 or 9.0")
    return float(value)
