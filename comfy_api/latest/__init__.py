"""The newest version of the node API: ``from comfy_api.latest import io, ui, ComfyExtension``."""

from abc import ABC, abstractmethod

from comfy_api.internal.api_registry import ComfyAPIBase
from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.latest import _io as io
from comfy_api.latest import _ui as ui

from . import _execution
from ._caching import Caching
from ._input import AudioInput, ImageInput, LatentInput, MaskInput, VideoInput
from ._input_impl import VideoFromComponents, VideoFromFile
from ._patching import Patching
from ._util import MESH, SPLAT, VOXEL, File3D, VideoCodec, VideoComponents, VideoContainer

IO = io
UI = ui


class ComfyAPI_latest(ComfyAPIBase):  # noqa: N801 - the public name
    """The API's entry point. All its methods are coroutines; ``ComfyAPISync`` has blocking ones."""

    VERSION = "latest"
    STABLE = False

    NodeReplacement = _execution.NodeReplacement
    Execution = _execution.Execution
    Caching = Caching
    Patching = Patching

    def __init__(self) -> None:
        super().__init__()
        self.node_replacement = self.NodeReplacement()
        self.execution = self.Execution()
        self.caching = self.Caching()
        self.patching = self.Patching()


class ComfyExtension(ABC):
    """A pack's extension, which its ``comfy_entrypoint()`` returns."""

    async def on_load(self) -> None:  # noqa: B027 - optional
        """Prepare what the nodes share. Called once, before :meth:`get_node_list`."""

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes of the pack."""


class Input:
    """The types of values that nodes receive."""

    Audio = AudioInput
    Image = ImageInput
    Latent = LatentInput
    Mask = MaskInput
    Video = VideoInput


class InputImpl:
    """Classes that make the values in ``Input``."""

    VideoFromComponents = VideoFromComponents
    VideoFromFile = VideoFromFile


class Types:
    """Further types that nodes exchange."""

    File3D = File3D
    MESH = MESH
    SPLAT = SPLAT
    VOXEL = VOXEL
    VideoCodec = VideoCodec
    VideoComponents = VideoComponents
    VideoContainer = VideoContainer


ComfyAPI = ComfyAPI_latest
ComfyAPISync = create_sync_class(ComfyAPI_latest)

__all__ = ["IO", "UI", "Caching", "ComfyAPI", "ComfyAPISync", "ComfyExtension", "Input", "InputImpl", "Patching", "Types", "io", "ui"]
