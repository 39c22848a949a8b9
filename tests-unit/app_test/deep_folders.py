"""Folders so deep that no path names the innermost one."""

import os
import pathlib


def make_deep(top: pathlib.Path, depth: int, name: str = "d") -> None:
    """Make *depth* folders within folders below *top*, step by step because the whole path is too long, and a file in the innermost."""
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
        with open("file", "w"):
            pass
    finally:
        os.chdir(here)
