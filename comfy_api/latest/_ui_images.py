"""Saves image tensors as PNG, animated PNG and animated WebP together with the workflow."""

from collections.abc import Sequence
from typing import Any

from comfy.lazy_import import lazy_module

from ._io_widgets import FolderType
from ._ui_files import SavedImages, SavedResult, SavePlan, metadata_of

np = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
pil_png = lazy_module("PIL.PngImagePlugin")

EXIF_MODEL, EXIF_MAKE = 0x0110, 0x010F


def tensor_to_pil(image_HWC: Any) -> Any:
    """The PIL image of one float tensor [height, width, channel], 0 to 1; one channel becomes a grey image."""
    pixels = np.clip(255.0 * image_HWC.cpu().numpy(), 0, 255).astype(np.uint8)
    return pil_image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)


def png_metadata(cls: Any) -> Any:
    """PNG text chunks with the metadata of node *cls*, or None if there is none."""
    texts = metadata_of(cls)
    if not texts:
        return None
    chunks = pil_png.PngInfo()
    for key, text in texts.items():
        chunks.add_text(key.encode("latin-1", "replace").decode("latin-1"), text)
    return chunks


def animated_png_metadata(cls: Any) -> Any:
    """The metadata in private ``comf`` chunks after the image data, where the page looks for it in animations; None if there is none."""
    texts = metadata_of(cls)
    if not texts:
        return None
    chunks = pil_png.PngInfo()
    for key, text in texts.items():
        chunks.add(b"comf", key.encode("latin-1", "replace") + b"\0" + text.encode("latin-1"), after_idat=True)
    return chunks


def webp_metadata(image: Any, cls: Any) -> Any:
    """EXIF data with ``key:json`` strings: the prompt in the tag of the camera's model, the rest from the make's tag downwards."""
    exif = image.getexif()
    tag = EXIF_MAKE
    for key, text in metadata_of(cls).items():
        if key == "prompt":
            exif[EXIF_MODEL] = f"prompt:{text}"
        else:
            exif[tag] = f"{key}:{text}"
            tag -= 1
    return exif


def _plan(images_BHWC: Any, filename_prefix: str, folder_type: FolderType) -> SavePlan:
    if len(images_BHWC) == 0:
        raise ValueError("there are no images to save: the batch is empty")
    height, width = images_BHWC[0].shape[:2]
    return SavePlan(filename_prefix, folder_type, width, height)


def _save_animation(frames: Sequence[Any], path: str, fps: float, **options: Any) -> None:
    duration_ms = int(1000.0 / fps)
    frames[0].save(path, save_all=True, duration=duration_ms, append_images=frames[1:], **options)


class ImageSaveHelper:
    """Saves images below the input, output or temp folder. *images* is [batch, height, width, channel]; *cls* is the node."""

    _convert_tensor_to_pil = staticmethod(tensor_to_pil)
    _create_png_metadata = staticmethod(png_metadata)
    _create_animated_png_metadata = staticmethod(animated_png_metadata)
    _create_webp_metadata = staticmethod(webp_metadata)

    @staticmethod
    def save_images(images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, compress_level: int = 4) -> list[SavedResult]:
        """Save each image as a PNG file. Raises ``ValueError`` for an empty batch."""
        plan, chunks, results = _plan(images, filename_prefix, folder_type), png_metadata(cls), []
        for number, image in enumerate(images):
            result = plan.next("png", number)
            tensor_to_pil(image).save(plan.path_of(result), pnginfo=chunks, compress_level=compress_level)
            results.append(result)
        return results

    @staticmethod
    def get_save_images_ui(images: Any, filename_prefix: str, cls: Any, compress_level: int = 4) -> SavedImages:
        """Save as PNG files in the output folder, ready to show."""
        return SavedImages(ImageSaveHelper.save_images(images, filename_prefix, FolderType.output, cls, compress_level))

    @staticmethod
    def save_animated_png(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, fps: float, compress_level: int
    ) -> SavedResult:
        """Save the batch as one animated PNG with *fps* frames per second."""
        plan = _plan(images, filename_prefix, folder_type)
        result, chunks = plan.next("png"), animated_png_metadata(cls)
        frames = [tensor_to_pil(image) for image in images]
        _save_animation(frames, plan.path_of(result), fps, pnginfo=chunks, compress_level=compress_level)
        return result

    @staticmethod
    def get_save_animated_png_ui(images: Any, filename_prefix: str, cls: Any, fps: float, compress_level: int) -> SavedImages:
        """Save as an animated PNG in the output folder, ready to show."""
        saved = ImageSaveHelper.save_animated_png(images, filename_prefix, FolderType.output, cls, fps, compress_level)
        return SavedImages([saved], is_animated=len(images) > 1)

    @staticmethod
    def save_animated_webp(
        images: Any, filename_prefix: str, folder_type: FolderType, cls: Any, fps: float, lossless: bool, quality: int, method: int
    ) -> SavedResult:
        """Save the batch as one animated WebP; *quality* 0 to 100, *method* 0 (fast) to 6 (small)."""
        plan = _plan(images, filename_prefix, folder_type)
        result = plan.next("webp")
        frames = [tensor_to_pil(image) for image in images]
        exif = webp_metadata(frames[0], cls)
        _save_animation(frames, plan.path_of(result), fps, exif=exif, lossless=lossless, quality=quality, method=method)
        return result

    @staticmethod
    def get_save_animated_webp_ui(
        images: Any, filename_prefix: str, cls: Any, fps: float, lossless: bool, quality: int, method: int
    ) -> SavedImages:
        """Save as an animated WebP in the output folder, ready to show."""
        saved = ImageSaveHelper.save_animated_webp(images, filename_prefix, FolderType.output, cls, fps, lossless, quality, method)
        return SavedImages([saved], is_animated=len(images) > 1)
