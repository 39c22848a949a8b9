"""Digests of tensors by either hash: equal exactly for equal dtype, shape and values."""

import sys

import pytest
import torch

from comfy.patch_identity import tensor_digests
from comfy.patch_identity.tensor_digests import DIGEST_BYTES, blake3_digest, content_digest


@pytest.fixture(params=["xxhash", "blake3"], autouse=True)
def hashing(request, monkeypatch):
    """The hash that is used where the package of that name is there, and only it."""
    if request.param == "xxhash":
        pytest.importorskip("xxhash")
    else:
        monkeypatch.setitem(sys.modules, "xxhash", None)
    tensor_digests._hash.cache_clear()
    yield request.param
    tensor_digests._hash.cache_clear()


def test_the_hash_is_the_fast_one_where_it_is_installed(hashing):
    assert (tensor_digests._hash() is blake3_digest) == (hashing == "blake3")


@pytest.mark.parametrize("size", [0, 1, 1000, 20 << 20])
def test_equal_contents_have_equal_digests_and_one_bit_makes_others(size):
    tensor = torch.arange(size, dtype=torch.uint8)
    digest = content_digest(tensor)
    assert len(digest) == DIGEST_BYTES and content_digest(tensor.clone()) == digest
    for place in {0, size // 2, size - 1} if size else ():
        changed = tensor.clone()
        changed[place] ^= 1
        assert content_digest(changed) != digest


def test_dtype_and_shape_count_and_layout_in_memory_does_not():
    tensor = torch.arange(12, dtype=torch.int32)
    others = [tensor, tensor.reshape(3, 4), tensor.reshape(4, 3), tensor.view(torch.float32), tensor[:11]]
    assert len({content_digest(other) for other in others}) == len(others)
    turned = tensor.reshape(3, 4).T
    assert content_digest(turned) == content_digest(turned.contiguous()) != content_digest(tensor.reshape(4, 3))
