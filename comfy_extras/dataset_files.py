"""Nodes that read and write folders of pictures, videos and captions (part of ``nodes_dataset``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras import image_writing
from comfy_extras.image_reading import read_image
from utils.path_safety import is_within_directory
from utils.saved_names import next_counter
from utils.whole_files import write_whole

if TYPE_CHECKING:
    from torch import Tensor

input_types = lazy_module("comfy_api.latest._input_impl.video_types")

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".webm", ".mkv", ".flv")
OVERWRITE, INCREMENT = "overwrite", "increment"
_LOADING = ("load folder", "load from folder", "load dataset", "import dataset")
_SAVING = ("save folder", "save to folder", "save dataset", "save images", "export dataset")


def folder_below(root: str, name: str) -> str:
    """The folder *name* below *root*. Raises ``ValueError`` when it leads out of it."""
    path = os.path.abspath(os.path.join(root, name))
    if "\0" in name or not is_within_directory(root, path):
        raise ValueError(f"the folder {name!r} leads out of {root}; name one inside it")
    return path


def files_in(folder: str, endings: tuple[str, ...], with_repeats: bool = False) -> list[str]:
    """Paths of the files of *folder* with one of *endings*, by name. Raises ``ValueError`` where there are none.

    *with_repeats*: folders in it count too, their files as often as the number says that a folder's name begins with (``10_name``).
    """
    found = list(_files_in(folder, endings, with_repeats))
    if not found:
        raise ValueError(f"{folder} holds no file that ends in {', '.join(endings)}")
    return found


def caption_of(path: str) -> str:
    """The text beside a file, in ``.txt`` and UTF-8; empty where there is none."""
    try:
        with open(f"{os.path.splitext(path)[0]}.txt", encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _files_in(folder: str, endings: tuple[str, ...], with_repeats: bool) -> Iterator[str]:
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.lower().endswith(endings):
            yield path
        elif with_repeats and os.path.isdir(path):
            number = name.split("_")[0]
            yield from list(_files_in(path, endings, False)) * (int(number) if number.isdecimal() else 1)


class _Loader(io.ComfyNode):
    """Reads a folder of the input folder."""

    NODE_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    KIND: ClassVar[str] = "images"
    CAPTIONS: ClassVar[bool] = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        is_video = cls.KIND == "videos"
        endings = VIDEO_ENDINGS if is_video else PICTURE_ENDINGS
        told = f"Reads all {cls.KIND} of a folder{', and their captions (.txt)' if cls.CAPTIONS else ''}: {', '.join(endings)}."
        first = (io.Video if is_video else io.Image).Output(display_name=cls.KIND, is_output_list=True, tooltip=f"The {cls.KIND}, by name.")
        texts = io.String.Output(display_name="texts", is_output_list=True, tooltip="Their captions.")
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.TITLE,
            category="video" if is_video else "image",
            description=told,
            search_aliases=[*_LOADING, f"load {cls.KIND}"],
            is_experimental=True,
            inputs=[io.Combo.Input("folder", options=folder_paths.get_input_subfolders(), tooltip="A folder inside the input folder.")],
            outputs=[first, texts] if cls.CAPTIONS else [first],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """What the files hold, and their captions. Raises ``ValueError`` when there are none, or one cannot be read."""
        endings, read = (VIDEO_ENDINGS, _video) if cls.KIND == "videos" else (PICTURE_ENDINGS, _picture)
        paths = files_in(folder_below(folder_paths.get_input_directory(), folder), endings, with_repeats=cls.CAPTIONS)
        items = [read(path) for path in paths]
        return io.NodeOutput(items, [caption_of(path) for path in paths]) if cls.CAPTIONS else io.NodeOutput(items)


def _picture(path: str) -> Tensor:
    return read_image(path)[0][:1]


def _video(path: str) -> Any:
    return input_types.VideoFromFile(path)


class LoadImageDataSetFromFolder(_Loader):
    """Reads the pictures of a folder."""

    NODE_ID = "LoadImageDataSetFromFolder"
    TITLE = "Load Image (from Folder)"


class LoadImageTextDataSetFromFolder(_Loader):
    """Reads the pictures of a folder and their captions."""

    NODE_ID = "LoadImageTextDataSetFromFolder"
    TITLE = "Load Image-Text (from Folder)"
    CAPTIONS = True


class LoadVideoDataSetFromFolder(_Loader):
    """Opens the videos of a folder; frames are decoded when they are needed."""

    NODE_ID = "LoadVideoDataSetFromFolder"
    TITLE = "Load Video (from Folder)"
    KIND = "videos"


class LoadVideoTextDataSetFromFolder(_Loader):
    """Opens the videos of a folder and reads their captions."""

    NODE_ID = "LoadVideoTextDataSetFromFolder"
    TITLE = "Load Video-Text (from Folder)"
    KIND = "videos"
    CAPTIONS = True


def save_pictures(images: list[Tensor], folder: str, prefix: str, mode: str) -> list[str]:
    """Write each of *images* (1×H×W×C) as PNG into *folder*, which is made; returns their paths.

    *mode* "overwrite" numbers from 0, "increment" behind what is there. Raises ``ValueError`` when *prefix* leads out of *folder*.
    """
    if os.path.basename(prefix) != prefix or "\0" in prefix:
        raise ValueError(f"the prefix {prefix!r} names a folder; write the folder into folder_name")
    os.makedirs(folder, exist_ok=True)
    start = "" if mode == OVERWRITE else f"_{next_counter(folder, prefix):05}"
    paths = [os.path.join(folder, f"{prefix}{start}_{number:05}.png") for number in range(len(images))]
    for path, image in zip(paths, images):
        image_writing.save_png(path, image_writing.to_picture(image[0] if image.ndim == 4 else image), {})
    return paths


class _Saver(io.ComfyNode):
    """Writes a folder of the output folder."""

    NODE_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    CAPTIONS: ClassVar[bool] = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        texts = io.String.Input("texts", optional=True, force_input=True, tooltip="One caption for each image.")
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.TITLE,
            category="image",
            description="Writes images into a folder as PNG" + (", captions beside them as .txt." if cls.CAPTIONS else "."),
            search_aliases=list(_SAVING),
            is_experimental=True,
            is_deprecated=not cls.CAPTIONS,
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images to save."),
                *([texts] if cls.CAPTIONS else []),
                io.String.Input("folder_name", default="dataset", tooltip="A folder inside the output folder."),
                io.String.Input("filename_prefix", default="image", tooltip="How file names begin.", advanced=True),
                io.Combo.Input("mode", default=OVERWRITE, options=[OVERWRITE, INCREMENT], tooltip="What becomes of files that are there."),
            ],
            outputs=[],
        )

    @classmethod
    def execute(
        cls, images: list[Tensor], folder_name: list[str], filename_prefix: list[str], mode: list[str], texts: list[str] | None = None
    ) -> io.NodeOutput:
        """Nothing. Raises ``ValueError`` when the folder lies elsewhere, or there are fewer captions than images."""
        frames = [frame for image in images for frame in (image.split(1) if image.ndim == 4 else [image])]
        if texts and len(texts) != len(frames):
            raise ValueError(f"{len(frames)} images, but {len(texts)} captions: give one for each image")
        paths = save_pictures(frames, folder_below(folder_paths.get_output_directory(), folder_name[0]), filename_prefix[0], mode[0])
        for path, text in zip(paths, texts or ()):
            write_whole(f"{os.path.splitext(path)[0]}.txt", lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        return io.NodeOutput()


class SaveImageDataSetToFolder(_Saver):
    """Writes pictures into a folder."""

    NODE_ID = "SaveImageDataSetToFolder"
    TITLE = "Save Image (to Folder) (DEPRECATED)"


class SaveImageTextDataSetToFolder(_Saver):
    """Writes pictures and their captions into a folder."""

    NODE_ID = "SaveImageTextDataSetToFolder"
    TITLE = "Save Image-Text (to Folder)"
    CAPTIONS = True


FILE_NODES: tuple[type[io.ComfyNode], ...] = (
    LoadImageDataSetFromFolder,
    LoadImageTextDataSetFromFolder,
    LoadVideoDataSetFromFolder,
    LoadVideoTextDataSetFromFolder,
    SaveImageDataSetToFolder,
    SaveImageTextDataSetToFolder,
)
