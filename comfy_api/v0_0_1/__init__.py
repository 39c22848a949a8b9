"""Version 0.0.1 of the node API, the oldest, so that packs written for it load."""

from comfy_api import v0_0_2
from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.latest import IO, UI, ComfyExtension, io, ui


class ComfyAPIAdapter_v0_0_1(v0_0_2.ComfyAPIAdapter_v0_0_2):  # noqa: N801 - the public name
    """The API's entry point in version 0.0.1."""

    VERSION = "0.0.1"
    STABLE = True


class Input(v0_0_2.Input):
    """The types of values that nodes receive."""


class InputImpl(v0_0_2.InputImpl):
    """Classes that make the values in ``Input``."""


class Types(v0_0_2.Types):
    """Further types that nodes exchange."""


ComfyAPI = ComfyAPIAdapter_v0_0_1
ComfyAPISync = create_sync_class(ComfyAPIAdapter_v0_0_1)

__all__ = ["IO", "UI", "ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "io", "ui"]
