"""One patch of one weight, and what makes it equal to another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from comfy.patch_identity.fingerprints import Fingerprint, fingerprints
from comfy.patch_identity.tensor_digests import DIGEST_BYTES
from comfy.units import MIB
from comfy.weight_adapter import WeightAdapterBase

REREADS_BYTES = MIB
OWN_KINDS = WeightAdapterBase.__module__.rpartition(".")[0] + "."  # the package that they are in


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
    found = _of_parts(patch) if _is_own(patch[1]) else fingerprints().of(tuple(patch), REREADS_BYTES)
    if isinstance(patch, AddedPatch) and (found.is_lasting or found.reason):
        patch.noted = found
    return found


def _is_own(change: Any) -> bool:
    """Whether *change* is of one of this project's kinds, whose objects never change. A node pack's may, and may be equal to others."""
    return type(change).__module__.startswith(OWN_KINDS)


def _of_parts(patch: tuple[Any, ...]) -> Fingerprint:
    """The fingerprint of *patch*, whose change is walked once and not again for each strength."""
    change, others = fingerprints().of_lasting(patch[1], REREADS_BYTES), fingerprints().of((patch[0], *patch[2:]), REREADS_BYTES)
    digest = hashlib.blake2b(change.digest + others.digest, digest_size=DIGEST_BYTES).digest()
    witnesses, is_lasting = change.witnesses + others.witnesses, change.is_lasting and others.is_lasting
    return Fingerprint(digest, change.reason or others.reason, witnesses, is_lasting)


def unread_tensors(patch: tuple[Any, ...]) -> Iterator[Tensor]:
    """The tensors of *patch*, as long as nobody has asked what it is known by; weights of models, which are not read, are left out."""
    if isinstance(patch, AddedPatch) and patch.noted is None:
        values = getattr(patch[1], "weights", patch[1])
        for value in values if isinstance(values, tuple | list) else ():
            if isinstance(value, Tensor) and not isinstance(value, Parameter):
                yield value
