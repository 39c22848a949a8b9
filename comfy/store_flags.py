"""The flags of the store of weights."""

import argparse


def lasting_weights(group: argparse._ArgumentGroup) -> None:
    """weights that outlive the server"""
    add = group.add_argument
    add(
        "--ram-model-store",
        metavar="DIR|auto",
        help="keep the weights that are read as files in this folder of a memory file system (auto: this user's in /dev/shm), which other "
        "servers on this machine, and this one after a restart, use in place; needs the RAM model cache and Linux (default: none)",
    )
    add(
        "--ram-model-store-mb",
        type=_size_in_mb,
        default=None,
        metavar="MB",
        help="how much all servers together keep there (default: as much as --ram-model-cache-mb says)",
    )


def _size_in_mb(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of MB from 1 on")
    return int(value)
