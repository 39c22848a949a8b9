"""Whether a node's code runs inside ``torch.inference_mode()``, decided without importing torch for nodes that do not use it."""

import contextlib
import importlib
import sys


def inference_scope(class_def: type) -> contextlib.AbstractContextManager:
    """The context manager that a function of *class_def* is called inside; any thread.

    Inference mode if torch is imported already, or if the module of the class has a global named ``torch`` (then torch is
    imported now); else nothing.
    """
    torch = sys.modules.get("torch")
    if torch is None and "torch" in vars(sys.modules.get(class_def.__module__, sys)):
        torch = importlib.import_module("torch")
    # Another thread may be in the middle of importing it.
    mode = getattr(torch, "inference_mode", None)
    return contextlib.nullcontext() if mode is None else mode()
