"""The names node packs import from here: a folder of images, and axes appended to a tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

pil_image = lazy_module("PIL.Image")


def append_dims(x: Tensor, target_dims: int) -> Tensor:
    """A view of *x* with axes of length 1 at its end, *target_dims* in all. Raises ``ValueError`` where it has more already."""
    missing = target_dims - x.ndim
    if missing < 0:
        raise ValueError(f"a tensor with {x.ndim} axes cannot get {target_dims}: axes are only added")
    return x.reshape(*x.shape, *[1] * missing)


class FolderOfImages:
    """The images below a folder, sorted by path, as a data set of one-item tuples. Blocks on the disk."""

    IMG_EXTENSIONS: ClassVar[set[str]] = {f".{name}" for name in ("bmp", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp")}

    def __init__(self, root: str | Path, transform: Callable[[Any], Any] | None = None) -> None:
        self.root = Path(root)
        self.transform = transform
        self.paths = sorted(path for path in self.root.rglob("*") if path.suffix.lower() in self.IMG_EXTENSIONS)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: int) -> tuple[Any]:
        """The RGB image number *key*, through the transform if there is one."""
        with pil_image.open(self.paths[key]) as stored:
            image = stored.convert("RGB")
        return (image if self.transform is None else self.transform(image),)
