"""Keys written down once: what is stored under them must be found by every later version, or the format's name must change."""

import asyncio
import collections
import hashlib

import pytest

from comfy_execution.cache_provider import _serialize_cache_key
from comfy_execution.shared_keys.code_digest import digest_files
from comfy_execution.shared_keys.keys import FORMAT, _hash
from comfy_execution.signatures import InputSignatures, canonical_bytes, framed

SCALARS = [None, True, False, 0, -1, 2**70, 1.5, -0.0, float("inf"), "", "a", "é\ud800", b"\0b", 1 + 2j]
CONTAINERS = {"list": [1, [2, ()]], "tuple": (1, "2"), "dict": {1: {"a": b"b"}}, "set": {1, 2, "3"}, "frozen": frozenset((b"x",))}
OTHERS = [range(3), bytearray(b"q"), collections.OrderedDict(a=1)]
GRAPH = {
    "1": {"class_type": "Load", "inputs": {"name": "m.safetensors", "scale": 1.5}},
    "2": {"class_type": "Told", "inputs": {"x": ["1", 0], "list": [1, 2, 3]}},
    "3": {"class_type": "Save", "inputs": {"a": ["2", 1], "b": ["1", True]}},
}


@pytest.mark.parametrize(
    "value, recorded",
    [
        (SCALARS, "d983c3ea412c752354bb842f0f829ca1123fcfc2d38c1ac5f448f74d962db84e"),
        (CONTAINERS, "42b9e26bcc9b7ad4a1f3a9ee3c15ec7ecd6f8935986482d2dbb80f3026693f76"),
        (OTHERS, "3072f732680d3af5b473d66ff61e8d2465c08bb3df8d16cc43791b9f1bf07333"),
    ],
    ids=["scalars", "containers", "others"],
)
def test_canonical_bytes(value, recorded):
    assert hashlib.sha256(canonical_bytes(value)).hexdigest() == recorded


def test_signatures_of_a_graph():
    async def unchanged(node_id):
        return False

    async def all_signatures():
        signatures = InputSignatures(GRAPH.get, unchanged, lambda node_id: node_id == "2")
        return [await signatures.get(node_id) for node_id in GRAPH]

    assert asyncio.run(all_signatures()) == [
        "18d197665d2e217309dea536051e197f5ee469563d0e5257ddcb7862d73c99ba",
        "9faa37ab581ab55216cf9e4bcaa8c378ea4438d0707f16431a9a00a4cc627d4b",
        "b50fbfc868a2eab8cfce1ffa5995944d47cb93135f2bce29bb9666ed3ce33c05",
    ]


def test_the_form_that_comfyui_gives_keys():
    assert _serialize_cache_key(CONTAINERS) == "316be67503f633ea3fb251598bf6297282da2830d4fff5b473d8f2089201428d"


def test_shared_keys():
    assert FORMAT == "keepwarm-key-1"
    assert _hash([FORMAT, "é", "", "x" * 300]) == "a87203a2f2d6196f6022b56b0a506560e84ed1713f920b2fdeae65357a434a37"


def test_digests_of_code(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("")
    recorded = "54ee7b75cf58a20d19a28080017801a4eae1ba733e0ffe20d7cae99783da7ff3"
    assert digest_files(str(tmp_path), [str(tmp_path / "p" / "a.py"), str(tmp_path / "b.py")]) == recorded


def test_rows_of_frames_tell_apart_what_joins_to_the_same_bytes():
    assert framed(b"", b"ab") + framed(b"", b"c") != framed(b"", b"a") + framed(b"", b"bc")
