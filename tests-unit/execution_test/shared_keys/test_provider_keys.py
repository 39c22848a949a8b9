"""Keys outside the process: what they must tell apart, and what must not change them."""

import asyncio
import functools
import os
import subprocess
import sys
import types

import pytest

import folder_paths
from comfy_execution.executor.caches import CacheEntry
from comfy_execution.local_caches.hierarchical import HierarchicalCache
from comfy_execution.local_caches.keys import CacheKeySetInputSignature
from comfy_execution.nodes_graph.dynamic_prompt import DynamicPrompt
from comfy_execution.prompt_files.file_state import file_state
from comfy_execution.prompt_files.known_folders import FileRoots
from comfy_execution.shared_keys.code_digest import CodeDigests, digest_files
from comfy_execution.shared_keys.file_fingerprints import FileFingerprints
from comfy_execution.shared_keys.keys import HermeticKeys
from comfy_execution.shared_keys.world import HermeticWorld


class Loader:
    RETURN_TYPES, FUNCTION = ("MODEL",), "go"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {})}}


class User(Loader):
    RETURN_TYPES = ("*",)


CLASSES = {"Loader": Loader, "User": User}
PROMPT = {"a": {"class_type": "Loader", "inputs": {"name": "m.safetensors"}}, "b": {"class_type": "User", "inputs": {"name": ["a", 0]}}}


class NeverChanged:
    async def get(self, node_id):
        return False


@pytest.fixture
def roots(tmp_path):
    for name in ("checkpoints", "loras", "input", "embeddings", "diffusers", "vae_approx"):
        (tmp_path / name).mkdir()
    kinds = ("checkpoints", "loras", "embeddings", "diffusers", "vae_approx")
    return FileRoots({kind: (str(tmp_path / kind),) for kind in kinds}, {"input": str(tmp_path / "input")})


def world(roots, namespace="n", code="c"):
    digests = types.SimpleNamespace(of_class=lambda class_def: code)
    return HermeticWorld(lambda: namespace, lambda: roots, lambda: digests, FileFingerprints())


def keys(one_world, prompt=PROMPT, local=()):
    """The keys of a prompt's nodes; those in *local* have a result in this process."""

    async def work():
        key_set = functools.partial(CacheKeySetInputSignature, classes=lambda: CLASSES)
        outputs = HierarchicalCache(key_set, enable_providers=True)
        dynprompt = DynamicPrompt(prompt)
        await outputs.set_prompt(dynprompt, prompt, NeverChanged())
        for node_id in local:
            outputs.set_local(node_id, CacheEntry(None, [[1]]))
        found = HermeticKeys(one_world, dynprompt, outputs, CLASSES.__getitem__)
        await found.settle()
        await found.prepare(prompt)
        return {node_id: found.key(node_id) for node_id in prompt}

    return asyncio.run(work())


def test_equal_surroundings_give_equal_keys_for_any_ids(roots, tmp_path):
    (tmp_path / "checkpoints" / "m.safetensors").write_bytes(b"x" * 100)
    renamed = {"9": PROMPT["a"], "1": {"class_type": "User", "inputs": {"name": ["9", 0]}}}
    first, second = keys(world(roots)), keys(world(roots), renamed)
    assert first["a"] == second["9"] and first["b"] == second["1"] and len(first["b"]) == 64 and first["a"] != first["b"]


@pytest.mark.parametrize("change", ["content", "namespace", "code"])
def test_what_a_result_depends_on_changes_its_key_and_those_below(roots, tmp_path, change):
    path = tmp_path / "checkpoints" / "m.safetensors"
    path.write_bytes(b"x" * 100)
    first = keys(world(roots))
    if change == "content":
        path.write_bytes(b"x" * 99 + b"y")
    second = keys(world(roots, "m" if change == "namespace" else "n", "d" if change == "code" else "c"))
    assert first["a"] != second["a"] and first["b"] != second["b"]


def test_a_result_that_is_here_keeps_the_content_it_was_made_from(roots, tmp_path):
    path = tmp_path / "checkpoints" / "m.safetensors"
    path.write_bytes(b"x" * 100)
    one = world(roots)
    first = keys(one)
    path.write_bytes(b"y" * 100)
    assert keys(one, local=["a"]) == first
    assert keys(one) != first
    assert keys(world(roots), local=["a"])["b"] is None


def test_a_class_without_code_and_circles_have_no_key(roots):
    assert keys(world(roots, code=None))["b"] is None
    circle = {"a": {"class_type": "User", "inputs": {"name": ["b", 0]}}, "b": {"class_type": "User", "inputs": {"name": ["a", 0]}}}
    assert keys(world(roots), circle) == {"a": None, "b": None}


def test_a_chain_of_thousands_needs_no_recursion(roots):
    prompt = {"0": {"class_type": "User", "inputs": {"name": "x"}}}
    for index in range(1, 5000):
        prompt[str(index)] = {"class_type": "User", "inputs": {"name": [str(index - 1), 0]}}
    assert len(set(keys(world(roots), prompt).values())) == 5000


def test_texts_that_no_file_can_have_and_files_elsewhere(roots, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"1")
    for text, has_key in (("\ud800", True), (str(tmp_path / "elsewhere"), False), (str(tmp_path / "missing"), True)):
        assert (keys(world(roots), {"a": {"class_type": "User", "inputs": {"name": text}}})["a"] is not None) is has_key


def test_fingerprints_follow_content_and_survive_restarts(tmp_path):
    path, memory = tmp_path / "f", str(tmp_path / "memory" / "m.json")
    path.write_bytes(b"a" * (9 << 20))
    os.utime(path, (1, 1))
    first = FileFingerprints(memory)
    digest = first.request(str(path), file_state(path)).result(20)
    assert digest == FileFingerprints().request(str(path), file_state(path)).result(20)
    with path.open("r+b") as stream:
        stream.write(b"b")
    os.utime(path, (1, 1))
    assert first.request(str(path), file_state(path)).result(20) != digest
    assert first.request(str(tmp_path / "none"), None).result(20) is None
    FileFingerprints(str(tmp_path / "f")).request(str(path), file_state(path)).result(20)


def test_code_digests_cover_exactly_the_pack(tmp_path):
    packs = tmp_path / "packs"
    (packs / "p" / "sub").mkdir(parents=True)
    for name in ("p/__init__.py", "p/sub/x.py", "p/notes.txt", "single.py"):
        (packs / name).write_text(name)

    def digest(module_file, name):
        module = types.ModuleType(name)
        module.__file__ = str(packs / module_file)
        sys.modules[name] = module
        try:
            return CodeDigests(str(tmp_path / "core"), [str(packs)]).of_class(type("C", (), {"__module__": name}))
        finally:
            del sys.modules[name]

    first, single = digest("p/__init__.py", "pack_under_test"), digest("single.py", "single_under_test")
    assert first == digest("p/sub/x.py", "pack_under_test") and first != single
    (packs / "p" / "notes.txt").write_text("changed")
    assert digest("p/__init__.py", "pack_under_test") == first
    (packs / "p" / "sub" / "x.py").write_text("changed")
    assert digest("p/__init__.py", "pack_under_test") != first and digest("single.py", "single_under_test") == single
    assert CodeDigests("/", []).of_class(type("C", (), {"__module__": "no.such.module"})) is None


def test_a_digest_of_files_does_not_depend_on_where_they_lie(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x")
    assert digest_files(str(tmp_path / "one"), [str(tmp_path / "one/a.py")]) == digest_files(
        str(tmp_path / "two"), [str(tmp_path / "two/a.py")]
    )


def test_the_namespace_is_the_same_under_every_hash_seed():
    code = (
        "from comfy_execution.shared_keys.world import make_world; import hashlib; "
        "print(hashlib.sha256(make_world(lambda: 'd', 'n').namespace().encode()).hexdigest())"
    )
    root = os.path.dirname(os.path.abspath(folder_paths.__file__))
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
