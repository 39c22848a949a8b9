"""Series ``linear-signatures``: cache keys in linear time, validation without recursion."""

from collections.abc import Callable

import libcst as cst

from patchset import anchors
from patchset.series.definition import Series, Version
from patchset.transforms import AddImport, AddMethod, Decorate, InsertAfter, RemoveDefinition, ReplaceBody, ReplaceImport, Transform

CACHING, EXECUTION = "comfy_execution/caching.py", "execution.py"
KEYS = "CacheKeySetInputSignature"
SUCCESSOR = f"{KEYS}.names_its_node"

NODE_AT = """
def node_at(self, node_id):
    return self.dynprompt.get_node(node_id) if self.dynprompt.has_node(node_id) else None
"""
NAMES_ITSELF = """
def names_its_node(self, node_id):
    class_type = self.dynprompt.get_node(node_id)["class_type"]
    class_def = nodes.NODE_CLASS_MAPPINGS[class_type]
    return self.include_node_id_in_input() or getattr(class_def, "NOT_IDEMPOTENT", False) or include_unique_id_in_input(class_type)
"""

MESSAGE = """
A node's cache key was built from the descriptions of the node and of all its ancestors, again for every node: n nodes in a
chain cost n^2 work, and 900 cached nodes take as long as running them. Validation called itself once per node of a chain, so
1000 nodes in a row were refused with a recursion error.

A key is now a hash of the node's own inputs and its parents' keys, worked out once per node (comfy_execution/signatures.py),
and validate_inputs runs its own calls on a list instead of the Python stack (comfy_execution/trampoline.py). Hits and misses
stay as they were, except that 1, 1.0 and True no longer count as the same input.
"""


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version."""
    return [
        ReplaceImport(CACHING, "comfy_execution.signatures", "InputSignatures", "comfy_execution.graph_utils", "is_link"),
        InsertAfter(
            CACHING,
            f"{KEYS}.__init__",
            "self.is_changed_cache = is_changed_cache",
            "self.signatures = InputSignatures(self.node_at, is_changed_cache.get, self.names_its_node)\n",
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
        AddMethod(CACHING, KEYS, "include_node_id_in_input", NODE_AT),
        AddImport(EXECUTION, "comfy_execution.trampoline", "without_recursion", "comfy_execution.graph_utils", "is_link"),
        Decorate(EXECUTION, "validate_inputs", "without_recursion"),
    ]


def _calls(name: str) -> Callable[[cst.FunctionDef], bool]:
    """A test for functions whose body calls *name*."""

    def recognise(function: cst.FunctionDef) -> bool:
        return anchors.calls(function, name)

    return recognise


SERIES = Series(
    name="linear-signatures",
    subject="Compute cache keys in linear time, validate without recursion",
    message=MESSAGE,
    edits=edits,
    files=(
        ("comfy_execution/signatures.py", "comfy_execution/signatures.py"),
        ("patchset/modules/trampoline.py", "comfy_execution/trampoline.py"),
    ),
    tests=(
        ("tests-unit/execution_test/test_signatures.py", "tests-unit/execution_test/signatures_test.py"),
        ("patchset/modules/trampoline_test.py", "tests-unit/execution_test/trampoline_test.py"),
        ("patchset/modules/linear_signatures_test.py", "tests-unit/execution_test/linear_signatures_test.py"),
    ),
)
