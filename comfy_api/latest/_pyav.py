"""PyAV, which reads and writes videos and sound; optional, imported at first use."""

from typing import Any

from comfy.lazy_import import LazyModule


class _PyAV(LazyModule):
    def __getattr__(self, attribute: str) -> Any:
        try:
            return super().__getattr__(attribute)
        except ModuleNotFoundError as error:
            if error.name != "av":
                raise
            raise ImportError("videos and sound files need PyAV, which is not installed. Run: pip install av") from error


av: Any = _PyAV("av")
