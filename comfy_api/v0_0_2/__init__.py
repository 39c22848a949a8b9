"""Version 0.0.2 of the node API, equal to the newest version so far."""

from comfy_api import latest
from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.latest import IO, UI, ComfyExtension, io, ui


class ComfyAPIAdapter_v0_0_2(latest.ComfyAPI_latest):  # noqa: N801 - the public name
    """The API's entry point in version 0.0.2."""

    VERSION = "0.0.2"
    STABLE = False


class Input(latest.Input):
    """The types of values that nodes receive."""


class InputImpl(latest.InputImpl):
    """Classes that make the values in ``Input``."""


class Types(latest.Types):
    """Further types that nodes exchange."""


ComfyAPI = ComfyAPIAdapter_v0_0_2
ComfyAPISync = create_sync_class(ComfyAPIAdapter_v0_0_2)

__all__ = ["IO", "UI", "ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Types", "io", "ui"]
