"""What a running prompt asks of the program around it: cancelling, help when memory runs out, previews, the device."""

import importlib
import logging
from typing import Any

from comfy.interruption import InterruptProcessingException
from comfy.lazy_import import lazy_module

log = logging.getLogger(__name__)
model_management = lazy_module("comfy.model_management")

OUT_OF_MEMORY_HINT = (
    "The device ran out of memory, so all loaded models were unloaded. If this workflow fitted before, a batch size or an image size "
    "has probably become too large; else try --lowvram or a smaller model."
)
SHAPE_HINT = (
    "Two parts of the model do not fit together. The usual reason is a text encoder of another model family: check the file and the "
    "type in the CLIP loader that this sampler's conditioning comes from."
)


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

    def prompt_ended(self) -> None:
        """Unload all models where the flags ask for that after each prompt (``--disable-smart-memory``)."""
        if model_management.DISABLE_SMART_MEMORY:
            model_management.unload_all_models()

    def deployment(self) -> str:
        """What kind of device and precision computes here. Loads torch; blocks."""
        return importlib.import_module("comfy.residency.deployment_class").deployment_class()
