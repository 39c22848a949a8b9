"""Parts of a few tensors, written into a store and looked at."""

import torch

from comfy.ram_model_store.folder import part_name
from comfy.ram_model_store.mapping import dtype_name
from comfy.ram_model_store.part_format import SourceFacts
from comfy.ram_model_store.store import PartKey
from comfy.ram_model_store.writing import copy_into

SIDE = 300


def key_of(name, state="first", rest=""):
    """The key of the part *name* whose file is in *state*."""
    return PartKey(part_name(name, state, rest), f"{name} {state} {rest}", f"model of {name}")


def tensors_of(seed, side=SIDE):
    """Three tensors that follow from *seed*."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(side, side, generator=generator),
        "b": torch.randn(side, generator=generator).to(torch.float16),
        "empty": torch.empty(0, dtype=torch.int64),
    }


def put(store, key, tensors, seconds=1.0):
    """Write *tensors* into *store* as *key*; (whether they are in it now, the tensors in its memory)."""
    size_bytes = sum(tensor.nbytes for tensor in tensors.values())
    writer = store.begin(key, size_bytes)
    if writer is None:
        return False, None
    copies = copy_into(writer, 0, tensors)
    facts = SourceFacts("a file", {"of": "tests"}, {name: (dtype_name(one.dtype), tuple(one.shape)) for name, one in tensors.items()})
    return store.finish(writer, key, [facts], seconds), copies


def held(part, tensors):
    """Whether *part* has just *tensors*."""
    found = part.tensors(0, list(tensors), None)
    return found is not None and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
