"""The types of 3D nodes: shapes in memory, files of each format, and the data that the 3D viewer sends back."""

from typing import Any, NotRequired, TypedDict

from ._io_base import ComfyTypeIO, comfytype
from ._util.geometry_types import MESH, SPLAT, VOXEL, File3D


def _file_type(name: str, suffix: str, meaning: str) -> type:
    body = {"__module__": __name__, "__doc__": meaning, "Type": File3D}
    return comfytype(io_type=f"FILE_3D{suffix}")(type(name, (ComfyTypeIO,), body))


File3DAny = _file_type("File3DAny", "", "A 3D file of any format.")
File3DGLB = _file_type("File3DGLB", "_GLB", "Binary glTF.")
File3DGLTF = _file_type("File3DGLTF", "_GLTF", "glTF as JSON.")
File3DFBX = _file_type("File3DFBX", "_FBX", "FBX.")
File3DOBJ = _file_type("File3DOBJ", "_OBJ", "Wavefront OBJ.")
File3DSTL = _file_type("File3DSTL", "_STL", "STL.")
File3DUSDZ = _file_type("File3DUSDZ", "_USDZ", "USDZ.")
File3DPLY = _file_type("File3DPLY", "_PLY", "PLY: a point cloud or Gaussian splats.")
File3DSPLAT = _file_type("File3DSPLAT", "_SPLAT", "Gaussian splats, .splat.")
File3DSPZ = _file_type("File3DSPZ", "_SPZ", "Gaussian splats, compressed.")
File3DKSPLAT = _file_type("File3DKSPLAT", "_KSPLAT", "Gaussian splats, .ksplat.")
File3DSplatAny = _file_type("File3DSplatAny", "_SPLAT_ANY", "Gaussian splats in any container.")
File3DPointCloudAny = _file_type("File3DPointCloudAny", "_POINT_CLOUD_ANY", "A point cloud in any container.")


@comfytype(io_type="VOXEL")
class Voxel(ComfyTypeIO):
    """A grid of voxels."""

    Type = VOXEL


@comfytype(io_type="MESH")
class Mesh(ComfyTypeIO):
    """A batch of triangle meshes."""

    Type = MESH


@comfytype(io_type="SPLAT")
class Splat(ComfyTypeIO):
    """A batch of Gaussian splats."""

    Type = SPLAT


@comfytype(io_type="LOAD3D_CAMERA")
class Load3DCamera(ComfyTypeIO):
    """The viewer's camera: right-handed, Y up, looking along -Z."""

    class CameraInfo(TypedDict):
        """Place and lens of the camera; lengths in scene units, ``fov`` in degrees."""

        position: dict[str, float]
        target: dict[str, float]
        zoom: float
        cameraType: str
        quaternion: NotRequired[dict[str, float]]
        fov: NotRequired[float]
        aspect: NotRequired[float]
        near: NotRequired[float]
        far: NotRequired[float]
        frustum: NotRequired[dict[str, float]]

    Type = CameraInfo


@comfytype(io_type="LOAD3D_MODEL_INFO")
class Load3DModelInfo(ComfyTypeIO):
    """Places, rotations and scales of the viewer's models."""

    class Model3DTransform(TypedDict):
        """Place, rotation and scale of one model."""

        position: dict[str, float]
        quaternion: dict[str, float]
        scale: dict[str, float]

    Type = list[Model3DTransform]


@comfytype(io_type="LOAD_3D")
class Load3D(ComfyTypeIO):
    """The data that the 3D viewer sends to the server: pictures of the model by name, and the camera."""

    class Model3DDict(TypedDict):
        """File names of the pictures, with the camera and an optional recording."""

        image: str
        mask: str
        normal: str
        camera_info: dict[str, Any]
        recording: NotRequired[str]
        model_3d_info: NotRequired[list[dict[str, Any]]]

    Type = Model3DDict


@comfytype(io_type="LOAD_3D_ANIMATION")
class Load3DAnimation(Load3D):
    """As ``Load3D``, for models that move."""
