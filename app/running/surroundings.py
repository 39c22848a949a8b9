"""What a running prompt asks of the program around it: cancelling, help when memory runs out, previews, the device."""

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from comfy.cli_args import args
from comfy.interruption import InterruptProcessingException
from comfy.lazy_import import lazy_module
from comfy_execution.executor.isolation import Isolation
from comfy_execution.executor.memo_rules import is_core, may_be_remembered

log = logging.getLogger(__name__)
patching = lazy_module("comfy.patching.patched_models")
model_management = lazy_module("comfy.model_management")

OUT_OF_MEMORY_HINT = (
    "The device ran out of memory, so all loaded models were unloaded. If this workflow fitted before, a batch size or an image size "
    "has probably become too large; else try --lowvram or a smaller model."
)
PIPE_DEPTH = 4  # lists of values, of a tuple or dict of several things
SHAPE_HINT = (
    "Two parts of the model do not fit together. The usual reason is a text encoder of another model family: check the file and the "
    "type in the CLIP loader that this sampler's conditioning comes from."
)


def _patchers_in(value: Any, depth: int) -> Iterator[Any]:
    """The patchers in *value*, also in lists, tuples and dicts in it, as packs hand on several things at once; *depth* deep."""
    if isinstance(value, importlib.import_module("comfy.model_patcher").ModelPatcher):
        yield value
    elif isinstance(value, list | tuple | dict) and depth:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _patchers_in(part, depth - 1)


def nodes_module() -> Any:
    """The ``nodes`` module, whose functions packs replace. Imported at the first use."""
    return importlib.import_module("nodes")


class ServerSurroundings:
    """Implements ``comfy_execution.executor.engine.Surroundings`` for this server. Has no state; any thread."""

    def before_call(self) -> None:
        """A cancellation point: raises ``InterruptProcessingException`` when the user asked to stop."""
        nodes_module().before_node_execution()

    def set_interrupt(self, is_wanted: bool) -> None:
        """Ask the running prompt to stop at its next cancellation point, or withdraw that request."""
        nodes_module().interrupt_processing(is_wanted)

    def is_interrupt(self, error: BaseException) -> bool:
        """Whether *error* says that the user stopped the prompt."""
        # ``isinstance`` would ask the error, which may raise.
        return issubclass(type(error), InterruptProcessingException)

    def error_hint(self, error: BaseException, class_type: str) -> str:
        """Advice on an error of a node, or "". Unloads all models first when memory ran out."""
        if model_management.is_oom(error):
            log.error("Out of memory in %s; unloading all models", class_type)
            model_management.unload_all_models()
            return OUT_OF_MEMORY_HINT
        if "Sampler" in class_type and "mat1 and mat2 shapes" in str(error):
            return SHAPE_HINT
        return ""

    def choose_previews(self, method: str | None) -> None:
        """Apply a prompt's own preview method, or go back to the one of the start."""
        try:
            importlib.import_module("latent_preview").set_preview_method(method)
        except Exception:
            log.warning("The preview method %r could not be set", method, exc_info=True)

    def expects(self, values: Sequence[Any]) -> None:
        """Weights of the patchers among *values* may be sent to the card while other models compute, once torch is there."""
        if model_management.process_models().has_manager():
            patchers = [value for value in values if isinstance(value, importlib.import_module("comfy.model_patcher").ModelPatcher)]
            model_management.manager().expect(patchers)

    def called(self, class_def: Any, inputs: Mapping[str, Any] | None) -> None:
        """A pack's node may have written into the weights of models among its *inputs* (None: of any): what was sent of them is dropped."""
        if is_core(class_def) or not model_management.process_models().has_manager() or not model_management.manager().has_sent():
            return
        patchers = None if inputs is None else list(_patchers_in(list(inputs.values()), PIPE_DEPTH))
        model_management.manager().distrust(patchers)

    def prompt_ended(self) -> None:
        """Expect no model any more, and unload all where the flags ask for that after each prompt (``--disable-smart-memory``)."""
        if model_management.process_models().has_manager():
            model_management.manager().end_prompt()
        if model_management.DISABLE_SMART_MEMORY:
            model_management.unload_all_models()

    def remembers(self, class_def: Any) -> bool:
        """Whether the memo of patched models is asked about nodes of that class: never with ``--no-node-memo``."""
        return not args.no_node_memo and may_be_remembered(class_def, args.node_memo_packs)

    def recall(self, class_def: Any, inputs: Mapping[str, Any], files: Any) -> Any:
        """What the memo of patched models knows of this call; None when the inputs cannot be looked at, which is logged."""
        with Isolation(f"Comparing the inputs of {class_def.__name__} with earlier ones"):
            return patching.node_memo().ask(class_def, inputs, tuple(files))
        return None

    def deployment(self) -> str:
        """What kind of device and precision computes here. Loads torch; blocks."""
        return importlib.import_module("comfy.residency.deployment_class").deployment_class()


class StopRequests:
    """Implements ``comfy_execution.executor.run.Stops``: what the queue knows of requests to stop.

    That is nothing where there is no queue, or a pack's own that knows nothing of them.
    """

    def __init__(self, queue: Any) -> None:
        self._was_cancelled: Callable[[str], bool] | None = getattr(queue, "was_cancelled", None)
        self._conclude: Callable[[str], bool] | None = getattr(queue, "conclude", None)

    def asked(self, prompt_id: str) -> BaseException | None:
        """The interrupt, if the prompt was told to stop."""
        return InterruptProcessingException() if self._was_cancelled is not None and self._was_cancelled(prompt_id) else None

    def conclude(self, prompt_id: str) -> BaseException | None:
        """The same, at the end of the prompt: from then on nobody can stop it."""
        return InterruptProcessingException() if self._conclude is not None and self._conclude(prompt_id) else None
