"""Gives the values of a three-dimensional view without a browser: the camera that the file saved, or the initial one."""

from collections.abc import Mapping
from typing import Any, Final

VIEWPORT_CLASSES: Final = frozenset(
    {"Preview3DAdvanced", "Save3DAdvanced", "PreviewGaussianSplat", "PreviewPointCloud", "SaveGaussianSplat", "SavePointCloud"}
)

UNTURNED_CAMERA: Final[Mapping[str, Any]] = {
    "position": {"x": 10, "y": 10, "z": 10.000000000000002},
    "target": {"x": 0, "y": 0, "z": 0},
    "zoom": 1,
    "cameraType": "perspective",
    "quaternion": {"x": -0.2798481423331213, "y": 0.3647051996310008, "z": 0.11591689595929511, "w": 0.8804762392171493},
    "fov": 35,
    "aspect": 1,
    "near": 0.01,
    "far": 10000,
    "frustum": {"left": -5, "right": 5, "top": 5, "bottom": -5},
}


def view_state(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a view by its node's saved properties; pictures of it, which only a browser can take, are empty."""
    config = properties.get("Camera Config")
    camera = config.get("state") if isinstance(config, Mapping) and properties.get("Last Time Model File") else None
    return {
        "image": "",
        "mask": "",
        "normal": "",
        "camera_info": dict(camera if isinstance(camera, Mapping) else UNTURNED_CAMERA),
        "recording": "",
        "model_3d_info": [],
    }


def fit_view(view: dict[str, Any], width: Any, height: Any) -> None:
    """Give the camera of *view* the proportions of the picture that its node makes."""
    sizes = [one for one in (width, height) if isinstance(one, int | float) and not isinstance(one, bool) and one > 0]
    camera = view["camera_info"]
    if len(sizes) == 2 and camera.get("cameraType") == "perspective":
        view["camera_info"] = camera | {"aspect": sizes[0] / sizes[1]}
