"""What packs use of ``comfy.k_diffusion.utils``."""

import pytest
import torch
from PIL import Image

from comfy.k_diffusion.utils import FolderOfImages, append_dims


def test_folder_lists_images_in_order_and_converts_them(tmp_path):
    (tmp_path / "inner").mkdir()
    Image.new("L", (3, 2), 255).save(tmp_path / "b.PNG")
    Image.new("RGBA", (4, 2)).save(tmp_path / "inner" / "a.webp")
    (tmp_path / "a.txt").write_text("no image")
    images = FolderOfImages(tmp_path)
    assert [path.name for path in images.paths] == ["b.PNG", "a.webp"] and len(images) == 2
    assert images[0][0].mode == images[1][0].mode == "RGB"
    assert FolderOfImages(tmp_path, lambda image: image.size)[0] == ((3, 2),)


def test_folder_extensions_are_those_packs_offer():
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"} <= FolderOfImages.IMG_EXTENSIONS


def test_axes_are_appended_never_removed():
    assert append_dims(torch.ones(2, 3), 4).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="3 axes"):
        append_dims(torch.ones(2, 3, 4), 2)
