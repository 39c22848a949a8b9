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
    add(
        "--cache-managers",
        choices=("first", "all"),
        default="first",
        metavar="first|all",
        help="with --multi-user: who may load, hold and drop models through the pack's routes, the first user or all (default: first)",
    )
