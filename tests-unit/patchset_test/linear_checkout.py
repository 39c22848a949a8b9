"""A checkout that has the places which the series linear-signatures and flat-validation anchor on, and both as one series."""

import dataclasses
import hashlib
import subprocess

from patchset.series import SERIES

_LINEAR, _FLAT = SERIES["linear-signatures"], SERIES["flat-validation"]
BOTH = dataclasses.replace(
    _LINEAR,
    edits=lambda version: [*_LINEAR.edits(version), *_FLAT.edits(version)],
    files=_LINEAR.files + _FLAT.files,
    tests=_LINEAR.tests + _FLAT.tests,
)

# The places that the series anchors on, in files that only have these places.
CACHING = """import itertools

from comfy_execution.graph_utils import is_link
import nodes


class CacheKeySetInputSignature:
    def __init__(self, dynprompt, node_ids, is_changed_cache):
        self.dynprompt = dynprompt
        self.is_changed_cache = is_changed_cache

    def include_node_id_in_input(self):
        return False

    # how a node is told from others
    async def get_node_signature(self, dynprompt, node_id):
        return list(self.get_ordered_ancestry(dynprompt, node_id))

    async def get_immediate_node_signature(self, dynprompt, node_id):
        return include_unique_id_in_input(node_id)

    def get_ordered_ancestry(self, dynprompt, node_id):
        return self.get_ordered_ancestry_internal(dynprompt, node_id)

    def get_ordered_ancestry_internal(self, dynprompt, node_id):
        return self.get_ordered_ancestry_internal(dynprompt, node_id)
"""
EXECUTION = """from comfy_execution.graph_utils import GraphBuilder, is_link


async def validate_inputs(prompt, item):
    return await validate_inputs(prompt, item)
"""
MAIN = """import sys
import comfy_execution.caching
print('argv', sys.argv[1:], 'signatures' in str(vars(comfy_execution.caching)))
"""
FILES = {
    "comfyui_version.py": '__version__ = "0.30.0"\n',
    "execution.py": EXECUTION,
    "comfy_execution/caching.py": CACHING,
    "comfy_execution/graph_utils.py": "GraphBuilder = is_link = None\n",
    "nodes.py": "",
    "main.py": MAIN,
}


def make(root):
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode())
    git(root, "init", "-q", "-b", "master")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    return root


def git(root, *arguments):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def state(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts
    }


def edit(root, name, old, new):
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))
    git(root, "commit", "-q", "-am", "edited")
