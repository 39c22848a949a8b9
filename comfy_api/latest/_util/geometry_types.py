"""3D shapes in memory, and 3D files on disk or in memory."""

import shutil
from io import BytesIO
from pathlib import Path
from typing import IO

from comfy_api.latest._tensor_type import Tensor


class VOXEL:
    """A batch of voxel grids: ``data`` [batch, depth, height, width]."""

    def __init__(self, data: Tensor) -> None:
        self.data = data


class MESH:
    """A batch of triangle meshes.

    ``vertices`` [batch, vertex, 3] and ``faces`` [batch, face, 3] are padded to the largest mesh; ``vertex_counts`` and
    ``face_counts`` [batch] hold the real lengths where they differ, both or neither (``ValueError``). ``uvs`` [batch, vertex, 2],
    ``vertex_colors`` [batch, vertex, 3 or 4] and ``texture`` [batch, height, width, 3] are optional; ``unlit`` asks viewers not to shade.
    """

    def __init__(
        self,
        vertices: Tensor,
        faces: Tensor,
        uvs: Tensor | None = None,
        vertex_colors: Tensor | None = None,
        texture: Tensor | None = None,
        vertex_counts: Tensor | None = None,
        face_counts: Tensor | None = None,
        unlit: bool = False,
    ) -> None:
        if (vertex_counts is None) != (face_counts is None):
            raise ValueError("a mesh of padded parts needs both vertex_counts and face_counts, but only one was given")
        self.vertices, self.faces = vertices, faces
        self.uvs, self.vertex_colors, self.texture = uvs, vertex_colors, texture
        self.vertex_counts, self.face_counts = vertex_counts, face_counts
        self.unlit = unlit


class SPLAT:
    """A batch of Gaussian splats, ready to render.

    ``positions`` and ``scales`` [batch, splat, 3] in world space, ``rotations`` [batch, splat, 4] as unit quaternions wxyz,
    ``opacities`` [batch, splat, 1], ``sh`` [batch, splat, coefficient, 3]; ``counts`` [batch] where the batch is padded.
    """

    def __init__(
        self, positions: Tensor, scales: Tensor, rotations: Tensor, opacities: Tensor, sh: Tensor, counts: Tensor | None = None
    ) -> None:
        self.positions, self.scales, self.rotations = positions, scales, rotations
        self.opacities, self.sh, self.counts = opacities, sh, counts


class File3D:
    """A 3D file: a path, whose extension is its format, or a binary stream with its format (``glb``, ``obj``, …)."""

    def __init__(self, source: str | IO[bytes], file_format: str = "") -> None:
        self._source = source
        self._format = ""
        self.format = file_format or (Path(source).suffix if isinstance(source, str) else "")

    @property
    def format(self) -> str:
        """The format in lower case without a dot; empty if it is unknown."""
        return self._format

    @format.setter
    def format(self, value: str) -> None:
        self._format = (value or "").lstrip(".").lower()

    @property
    def is_disk_backed(self) -> bool:
        """Whether the file is on disk."""
        return isinstance(self._source, str)

    def get_source(self) -> str | IO[bytes]:
        """The path, or the stream at its beginning."""
        if not isinstance(self._source, str) and hasattr(self._source, "seek"):
            self._source.seek(0)
        return self._source

    def get_bytes(self) -> bytes:
        """The whole file."""
        source = self.get_source()
        return Path(source).read_bytes() if isinstance(source, str) else source.read()

    def get_data(self) -> BytesIO:
        """The whole file as a stream at its beginning; a ``BytesIO`` source is returned itself."""
        source = self.get_source()
        return source if isinstance(source, BytesIO) else BytesIO(self.get_bytes())

    def save_to(self, path: str) -> str:
        """Write the file to *path*, making its folders; returns the path. Saving a file onto itself does nothing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.get_source()
        if not isinstance(source, str):
            with target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
        elif Path(source).resolve() != target.resolve():
            shutil.copy2(source, target)
        return str(target)

    def __repr__(self) -> str:
        shown = repr(self._source) if isinstance(self._source, str) else "a stream"
        return f"<3D file {shown}, format {self._format or 'unknown'}>"
