"""Series ``linear-signatures``: cache keys in linear time."""

from collections.abc import Callable

import libcst as cst

from patchset import anchors
from patchset.series.definition import Series, Version
from patchset.transforms import AddMethod, InsertAfter, RemoveDefinition, ReplaceBody, ReplaceImport, Transform

CACHING = "comfy_execution/caching.py"
KEYS = "CacheKeySetInputSignature"
SUCCESSOR = f"{KEYS}.names_its_node"

NODE_AT = """
def node_at(self, node_id):
    return self.dynprompt.get_node(node_id) if self.dynprompt.has_node(node_id) else None
"""
REPLACED = """
def replaced_nodes(self):
    return getattr(self.dynprompt, "node_overrides", {})
"""
NAMES_ITSELF = """
def names_its_node(self, node_id):
    class_type = self.dynprompt.get_node(node_id)["class_type"]
    class_def = nodes.NODE_CLASS_MAPPINGS[class_type]
    return self.include_node_id_in_input() or getattr(class_def, "NOT_IDEMPOTENT", False) or include_unique_id_in_input(class_type)
"""

MESSAGE = """
A node's cache key was built from the descriptions of the node and of all its ancestors, again for every node: n nodes in a
chain cost n^2 work, and 900 cached nodes take as long as running them.

A key is now a hash of the node's own inputs and its parents' keys, worked out once per node (comfy_execution/signatures.py).
When a loop puts another node in the place of one (DynamicPrompt.override_node), keys are worked out anew. Hits and misses stay
as they were, except that 1, 1.0 and True no longer count as the same input.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        ReplaceImport(CACHING, "comfy_execution.signatures", "InputSignatures", "comfy_execution.graph_utils", "is_link"),
        InsertAfter(
            CACHING,
            f"{KEYS}.__init__",
            "self.is_changed_cache = is_changed_cache",
            "self.signatures = InputSignatures(self.node_at, is_changed_cache.get, self.names_its_node, self.replaced_nodes)\n",
        ),
        ReplaceBody(
            CACHING,
            f"{KEYS}.get_node_signature",
            "return await self.signatures.get(node_id)\n",
            _calls("get_ordered_ancestry"),
            "the body that calls self.get_ordered_ancestry",
        ),
        RemoveDefinition(
            CACHING,
            f"{KEYS}.get_immediate_node_signature",
            SUCCESSOR,
            _calls("include_unique_id_in_input"),
            "the body that calls include_unique_id_in_input",
        ),
        RemoveDefinition(
            CACHING,
            f"{KEYS}.get_ordered_ancestry",
            SUCCESSOR,
            _calls("get_ordered_ancestry_internal"),
            "the body that calls self.get_ordered_ancestry_internal",
        ),
        RemoveDefinition(
            CACHING,
            f"{KEYS}.get_ordered_ancestry_internal",
            SUCCESSOR,
            _calls("get_ordered_ancestry_internal"),
            "the body that calls itself",
        ),
        AddMethod(CACHING, KEYS, "include_node_id_in_input", NAMES_ITSELF),
        AddMethod(CACHING, KEYS, "include_node_id_in_input", REPLACED),
        AddMethod(CACHING, KEYS, "include_node_id_in_input", NODE_AT),
    ]


def _calls(name: str) -> Callable[[cst.FunctionDef], bool]:
    """A test for functions whose body calls *name*."""

    def recognise(function: cst.FunctionDef) -> bool:
        return anchors.calls(function, name)

    return recognise


SERIES = Series(
    name="linear-signatures",
    subject="Compute cache keys in linear time",
    message=MESSAGE,
    edits=edits,
    files=(("comfy_execution/signatures.py", "comfy_execution/signatures.py"),),
    tests=(
        ("tests-unit/execution_test/test_signatures.py", "tests-unit/execution_test/signatures_test.py"),
        ("patchset/modules/linear_signatures_test.py", "tests-unit/execution_test/linear_signatures_test.py"),
    ),
)
