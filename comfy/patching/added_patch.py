"""One patch of one weight, and what makes it equal to another."""

from __future__ import annotations

from typing import Any

from comfy.patch_identity.fingerprints import Fingerprint, fingerprints
from comfy.units import MIB

REREADS_BYTES = MIB


class AddedPatch(tuple[Any, ...]):
    """(strength, what, strength of the weight, slice, function) as ``add_patches`` made it; remembers its identity."""

    noted: Fingerprint | None = None


def patch_fingerprint(patch: tuple[Any, ...]) -> Fingerprint:
    """What *patch* is known by: equal for patches that do the same to a weight.

    One that cannot be compared equals only itself, in all clones that have it, until a tensor in it changes. Cheap when it was asked for
    before, except for what may change unseen.
    """
    noted = patch.noted if isinstance(patch, AddedPatch) else None
    if noted is not None and noted.is_current():
        return noted
    found = fingerprints().of(tuple(patch), REREADS_BYTES)
    if isinstance(patch, AddedPatch) and (found.is_lasting or found.reason):
        patch.noted = found
    return found
