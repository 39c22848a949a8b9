"""Keys outside the process, over generated values, and in other processes: hash seeds and versions of Python change nothing."""

import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comfy_execution.cache_provider import _canonicalize, _contains_self_unequal, _serialize_cache_key

ROOT = pathlib.Path(__file__).resolve().parents[3]

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text(st.characters(exclude_categories=()))
)
# Few different leaves, so that equal values, and unequal ones that Python's == holds equal, come up often.
NEAR = st.sampled_from([0, 0.0, -0.0, False, 1, 1.0, True, "", "0", b"", b"0", None, math.inf, "inf", "__tuple__", "int"])


def nested(leaves):
    """Leaves in containers of every kind, to any depth."""
    hashable = st.recursive(
        leaves, lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
    )
    return st.recursive(
        hashable,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.sets(hashable, max_size=3)
            | st.dictionaries(hashable, inner, max_size=3)
        ),
        max_leaves=10,
    )


def typed(value):
    """*value* with every type spelt out and floats as bits, so that Python's own == tells what keys should."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, struct.pack(">d", value)
    if isinstance(value, dict):
        return kind, frozenset((typed(key), typed(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return kind, frozenset(map(typed, value))
    if isinstance(value, list | tuple):
        return kind, tuple(map(typed, value))
    return kind, value


@settings(max_examples=500, deadline=None)
@given(st.tuples(nested(NEAR), nested(NEAR)) | st.tuples(nested(SCALARS), nested(SCALARS)))
@example((("__tuple__", [["int", 1]]), (1,)))
@example(([["int", 1]], [1]))
@example(({"__dict__": []}, {}))
@example((["__tuple__", []], ()))
@example(("\ud800", "\\ud800"))
def test_keys_are_equal_exactly_when_values_and_types_are(pair):
    first, second = pair
    keys = [_serialize_cache_key(value) for value in pair]
    assert all(len(key) == 64 for key in keys)
    assert (keys[0] == keys[1]) == (typed(first) == typed(second))


@given(nested(SCALARS), st.randoms(use_true_random=False))
def test_order_of_mappings_and_sets_does_not_matter(value, dice):
    def shuffled(one):
        if isinstance(one, dict):
            pairs = [(key, shuffled(item)) for key, item in one.items()]
            dice.shuffle(pairs)
            return dict(pairs)
        if isinstance(one, set | frozenset):
            items = list(one)
            dice.shuffle(items)
            return type(one)(items)
        return type(one)(map(shuffled, one)) if isinstance(one, list | tuple) else one

    assert _canonicalize(value) == _canonicalize(shuffled(value))


def with_inside(value, odd, path):
    """*value* with *odd* put somewhere into it."""
    return {"l": [value, odd], "t": (odd, value), "d": {"k": odd, "v": value}, "k": {odd: value}, "s": {odd}, "f": frozenset((odd,))}[path]


@given(nested(SCALARS), st.text("ltdksf", max_size=4))
def test_nan_at_any_depth_gives_no_key(value, path):
    odd = math.nan
    for step in path:
        if step in "ksf" and not isinstance(odd, float | tuple | frozenset):
            step = "l"
        try:
            odd = with_inside(value, odd, step)
        except TypeError:
            odd = [odd]
    assert _serialize_cache_key(odd) is None
    assert _contains_self_unequal(odd)


@given(nested(SCALARS))
def test_plain_values_are_equal_to_themselves(value):
    assert not _contains_self_unequal(value)


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Number(1),
        OrderedDict(a=1),
        namedtuple("Pair", "a")(1),
        bytearray(b"a"),
        1j,
        range(3),
        print,
        Ellipsis,
        type("B", (bytes,), {})(b"a"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": (value,)}])
def test_values_that_may_mean_more_than_their_content_have_no_key(value, wrap):
    assert _serialize_cache_key(wrap(value)) is None


# Run by each interpreter: keys of values, and of a prompt's nodes with everything around them given. BLAKE3 and torch need not be there.
SCRIPT = """
import asyncio, functools, json, os, sys, types
try:
    import blake3
except ImportError:
    sys.modules["blake3"] = types.SimpleNamespace(blake3=None)
from concurrent.futures import Future
from comfy_execution.local_caches.keys import CacheKeySetInputSignature
from comfy_execution.cache_provider import _serialize_cache_key
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.shared_keys.keys import HermeticKeys
from comfy_execution.shared_keys.world import HermeticWorld
from comfy_execution.local_caches.hierarchical import HierarchicalCache
from comfy_execution.prompt_files.known_folders import FileRoots

class Node:
    RETURN_TYPES, FUNCTION = ("*",), "go"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

class Never:
    async def get(self, node_id):
        return False

class Fingerprints:
    def request(self, path, state):
        done = Future()
        done.set_result("content of " + os.path.basename(path))
        return done

VALUES = [None, True, 1, -(2 ** 80), 1.5, -0.0, 1e-320, 1e308, float("inf"), "text", "\\u00e9\\ud800", b"\\x00\\xff", (1, (2,)), [1, [2]],
          {"b": 1, "a": {3, 1, 2}, 3: None}, frozenset(("x", "y", "z")), {("a", 1): [0.1 + 0.2]}]
folder = sys.argv[1]
prompt = {"a": {"class_type": "Node", "inputs": {"name": "m.safetensors", "strength": 0.1, "deep": {"z": [1, 2.5], "a": "x"}}},
          "b": {"class_type": "Node", "inputs": {"from": ["a", 0], "text": "caf\\u00e9"}},
          "c": {"class_type": "Node", "inputs": {"one": ["a", 1], "two": ["b", 0]}}}

async def keys():
    classes = {"Node": Node}
    world = HermeticWorld(lambda: "namespace", lambda: FileRoots({"checkpoints": (folder,)}, {}),
                          lambda: types.SimpleNamespace(of_class=lambda one: "code"), Fingerprints())
    outputs = HierarchicalCache(functools.partial(CacheKeySetInputSignature, classes=lambda: classes), enable_providers=True)
    dynprompt = DynamicPrompt(prompt)
    await outputs.set_prompt(dynprompt, prompt, Never())
    found = HermeticKeys(world, dynprompt, outputs, classes.__getitem__)
    await found.settle()
    await found.prepare(prompt)
    return [found.key(node_id) for node_id in prompt]

assert "torch" not in sys.modules
print(json.dumps([_serialize_cache_key(value) for value in VALUES] + asyncio.run(keys())))
"""


def keys_of(python, folder, hash_seed):
    done = subprocess.run(
        [python, "-c", SCRIPT, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@functools.cache
def interpreter(version):
    """An interpreter of that version that runs, or None."""
    for candidate in (f"python{version}", *map(str, pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))):
        path = shutil.which(candidate)
        if path is not None and subprocess.run([path, "-c", "pass"], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    (place / "m.safetensors").write_bytes(b"weights")
    return place


@pytest.fixture(scope="module")
def own_keys(folder):
    return keys_of(sys.executable, folder, "1")


def test_keys_do_not_depend_on_hash_seed_or_folder(own_keys, folder, tmp_path):
    shutil.copy(folder / "m.safetensors", tmp_path)
    assert keys_of(sys.executable, tmp_path, "2") == own_keys
    assert len(set(own_keys)) == len(own_keys) and all(len(key) == 64 for key in own_keys)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_keys_are_the_same_in_every_python(own_keys, folder, version):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} is installed")
    assert keys_of(python, folder, "3") == own_keys


def test_keys_of_this_version_are_as_they_were(own_keys):
    """A change of the form would make all that was stored useless; then this changes together with ``FORMAT``."""
    assert hashlib.sha256(json.dumps(own_keys).encode()).hexdigest() == "031dd61f5867c77ec1957e1c812cea641e89f6ea594b9ab8bec471737e21158a"
