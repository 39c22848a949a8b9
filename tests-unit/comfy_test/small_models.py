"""Small checkpoints in the published layouts, written once per test session."""

import functools
import os
import tempfile

from benchmarks.make_checkpoint import PARTS, checkpoint_layout, family, write_checkpoint


@functools.cache
def folder() -> tempfile.TemporaryDirectory:
    """The folder that holds them; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="small-models-")


@functools.cache
def small_checkpoint(name: str = "sd15", seed: int = 0, dtype: str = "fp32", parts: tuple[str, ...] = PARTS) -> str:
    """The path of a checkpoint of family *name* a tenth as wide (12th for the refiner), with its head counts in the metadata."""
    sizes = family(name, 12 if name == "sdxl-refiner" else 10)
    path = os.path.join(folder().name, f"{name}-{seed}-{dtype}-{'-'.join(parts)}.safetensors")
    write_checkpoint(path, checkpoint_layout(sizes, parts), seed, dtype, metadata=sizes.metadata())
    return path
