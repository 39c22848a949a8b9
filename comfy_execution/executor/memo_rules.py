"""Which nodes' calls may be remembered: those that make a patched model of their inputs alone."""

from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from comfy_execution.nodes_graph.schema_class import is_schema_class

# A class says by it that its calls may be remembered (True) or not (False).
ATTRIBUTE = "PATCH_MEMO"
MODELS = frozenset(("MODEL", "CLIP"))
CORE = ("nodes", "comfy_extras")
PACKS = "custom_nodes."
_suited: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def may_be_remembered(class_def: Any, packs: Collection[str]) -> bool:
    """Whether calls of *class_def* may be answered by former results.

    Only nodes of the core, of *packs* (names of their folders), and classes that say so by ``PATCH_MEMO = True``; never those that say
    False, that tell what has changed outside the prompt, see hidden inputs, act outside, or neither take nor return a model.
    """
    wish = getattr(class_def, ATTRIBUTE, None)
    if wish is False or not (wish is True or is_core(class_def) or _pack_of(class_def) in packs):
        return False
    if class_def not in _suited:
        _suited[class_def] = _is_suited(class_def)
    return _suited[class_def]


def is_core(class_def: Any) -> bool:
    """Whether *class_def* is a node of this program, not of a pack."""
    return str(class_def.__module__).partition(".")[0] in CORE


def _pack_of(class_def: Any) -> str | None:
    module = getattr(class_def, "RELATIVE_PYTHON_MODULE", None)
    return module.removeprefix(PACKS) if isinstance(module, str) and module.startswith(PACKS) else None


def _is_suited(class_def: Any) -> bool:
    acts = any(getattr(class_def, name, False) for name in ("OUTPUT_NODE", "NOT_IDEMPOTENT", "API_NODE", "HAS_INTERMEDIATE_OUTPUT"))
    asks = any(hasattr(class_def, name) for name in ("IS_CHANGED", "check_lazy_status"))
    if acts or asks or not MODELS.intersection(_names(class_def.RETURN_TYPES or ())):
        return False
    if is_schema_class(class_def) and class_def.GET_SCHEMA().hidden:
        return False
    declared = class_def.INPUT_TYPES()
    kinds = [kind[0] for part in ("required", "optional") for kind in (declared.get(part) or {}).values() if kind]
    return not declared.get("hidden") and bool(MODELS.intersection(_names(kinds)))


def _names(kinds: Any) -> set[str]:
    return {kind for kind in kinds if isinstance(kind, str)}
