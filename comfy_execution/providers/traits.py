"""What a node's class says about sharing its results, and what such a result looks like."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.cache_provider import CacheValue
from comfy_execution.providers.snapshot import MAX_DEPTH
from comfy_execution.providers.value_shapes import check_of

# Types whose values live in this process: asking for them would be in vain. What is really in a result decides when it is stored.
PROCESS_BOUND_TYPES = frozenset(
    "MODEL CLIP VAE CONTROL_NET CLIP_VISION STYLE_MODEL GLIGEN UPSCALE_MODEL SAMPLER GUIDER NOISE HOOKS HOOK_KEYFRAMES LORA_MODEL "
    "PHOTOMAKER AUDIO_ENCODER MODEL_PATCH LATENT_UPSCALE_MODEL".split()
)
# The only hidden input that a shared node may have; its key covers it.
SHAREABLE_HIDDEN = frozenset(("UNIQUE_ID",))
_ROW_TYPES = (list, tuple)


@dataclass(frozen=True, slots=True)
class NodeTraits:
    """Whether a class's results may be shared, whether what follows from them may, and its outputs: (type, is it a list)."""

    is_shareable: bool
    is_hermetic: bool
    outputs: tuple[tuple[str, bool], ...]
    # What each output's values must pass, None where nothing is known of them, and whether there may be none.
    _checks: tuple[tuple[Callable[[Any], bool] | None, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_checks", tuple((check_of(kind), is_list) for kind, is_list in self.outputs))

    def accepts(self, value: CacheValue) -> bool:
        """Whether *value* can be a result of the class: as many outputs, values of the kinds declared, and a ui of the known shape."""
        outputs, ui = value.outputs, value.ui
        if not isinstance(outputs, _ROW_TYPES) or len(outputs) != len(self._checks) or (ui is not None and not _is_ui(ui)):
            return False
        for items, (check, is_list) in zip(outputs, self._checks):
            if not isinstance(items, _ROW_TYPES) or (not items and not is_list):
                return False
            if check is not None and not all(map(check, items)):
                return False
        return True


def read_traits(class_def: Any) -> NodeTraits:
    """The traits of a node class.

    Not shared: output nodes, which act as well (save a file, show a picture), and nodes whose outputs exist in a process only.
    Not hermetic, so that neither they nor what follows from them is shared: nodes that are told more than their inputs (credentials,
    the whole workflow) and nodes that give something else each time.
    """
    returned = [
        str(getattr(kind, "io_type", kind)) if not isinstance(kind, list) else "COMBO"
        for kind in getattr(class_def, "RETURN_TYPES", None) or ()
    ]
    flags = [bool(flag) for flag in getattr(class_def, "OUTPUT_IS_LIST", None) or ()]
    flags += [False] * (len(returned) - len(flags))
    hidden = class_def.INPUT_TYPES().get("hidden") or {}
    told = {str(getattr(kind, "value", kind)) for kind in (spec[0] if isinstance(spec, tuple | list) else spec for spec in hidden.values())}
    hermetic = told <= SHAREABLE_HIDDEN and not getattr(class_def, "NOT_IDEMPOTENT", False)
    acts = getattr(class_def, "OUTPUT_NODE", False) or getattr(class_def, "HAS_INTERMEDIATE_OUTPUT", False)
    stays = any(kind in PROCESS_BOUND_TYPES for kind in returned)
    return NodeTraits(hermetic and bool(returned) and not acts and not stays, hermetic, tuple(zip(returned, flags)))


def names_files(ui: Any) -> bool:
    """Whether what a node shows is in files on this machine."""
    if ui is None:
        return False
    waiting, seen = [ui], set()
    while waiting:
        current = waiting.pop()
        if not isinstance(current, dict | list | tuple) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, dict) and "filename" in current:
            return True
        waiting.extend(current.values() if isinstance(current, dict) else current)
    return False


def _is_ui(ui: Any) -> bool:
    return isinstance(ui, dict) and isinstance(ui.get("output"), dict) and isinstance(ui.get("meta", {}), dict) and _is_json(ui, MAX_DEPTH)


def _is_json(value: Any, depth: int) -> bool:
    """Whether *value* can be sent to the page; nothing that contains itself can."""
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(key, str) and _is_json(item, depth - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and all(_is_json(item, depth - 1) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
