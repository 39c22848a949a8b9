"""``comfy_api.latest.ui``: results that nodes show in the page."""

import os
import uuid
from typing import Any

from ._io_output import _UIOutput
from ._io_widgets import FolderType
from ._ui_audio import AudioSaveHelper
from ._ui_files import SavedAudios, SavedImages, SavedResult, folder_of
from ._ui_images import ImageSaveHelper, tensor_to_pil

__all__ = [
    "AudioSaveHelper", "ImageSaveHelper", "PreviewAudio", "PreviewImage", "PreviewMask", "PreviewText", "PreviewUI3D",
    "PreviewUI3DAdvanced", "PreviewVideo", "SavedAudios", "SavedImages", "SavedResult",
]  # fmt: skip


def _temp_prefix() -> str:
    return f"ComfyUI_temp_{uuid.uuid4().hex[:8]}"


class PreviewImage(_UIOutput):
    """Shows images [batch, height, width, channel] from files in the temp folder."""

    def __init__(self, image: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        self.values = ImageSaveHelper.save_images(image, _temp_prefix(), FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": [self.animated]}


class PreviewMask(PreviewImage):
    """Shows masks [batch, height, width] as grey images."""

    def __init__(self, mask: Any, animated: bool = False, cls: Any = None, **kwargs: Any) -> None:
        height, width = mask.shape[-2:]
        super().__init__(mask.reshape(-1, height, width, 1).expand(-1, -1, -1, 3), animated, cls, **kwargs)


class PreviewAudio(_UIOutput):
    """Plays sound from FLAC files in the temp folder."""

    def __init__(self, audio: dict, cls: Any = None, **kwargs: Any) -> None:
        self.values = AudioSaveHelper.save_audio(audio, _temp_prefix(), FolderType.temp, cls)

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.values}


class PreviewVideo(_UIOutput):
    """Plays saved videos."""

    def __init__(self, values: list[SavedResult | dict], **kwargs: Any) -> None:
        self.values = values

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": [True]}


class PreviewUI3D(_UIOutput):
    """Shows a 3D file; keyword *bg_image* [batch, height, width, channel] puts its first image behind it."""

    def __init__(self, model_file: Any, camera_info: Any, **kwargs: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.bg_image_path = None
        background = kwargs.get("bg_image")
        if background is not None:
            name = f"bg_{uuid.uuid4().hex}.png"
            tensor_to_pil(background[0]).save(os.path.join(folder_of(FolderType.temp), name), compress_level=1)
            self.bg_image_path = f"temp/{name}"

    def as_dict(self) -> dict[str, Any]:
        return {"result": [self.model_file, self.camera_info, self.bg_image_path]}


class PreviewUI3DAdvanced(_UIOutput):
    """Shows a 3D file with the camera and the places of its models."""

    def __init__(self, model_file: Any, camera_info: Any, model_3d_info: Any) -> None:
        self.model_file = model_file
        self.camera_info = camera_info
        self.model_3d_info = model_3d_info

    def as_dict(self) -> dict[str, Any]:
        return {"result": [self.model_file, self.camera_info, self.model_3d_info]}


class PreviewText(_UIOutput):
    """Shows text."""

    def __init__(self, value: str, **kwargs: Any) -> None:
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        return {"text": [self.value]}
