"""What nodes for lists of pictures and texts have in common (part of ``nodes_dataset``).

A node works on one item at a time (``change``) or on the whole list (``change_all``). Pictures are tensors 1×H×W×C, of videos T×H×W×C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.image_writing import to_picture

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
torch = lazy_module("torch")

LARGEST_SEED = 0xFFFFFFFFFFFFFFFF


def seed_input() -> io.Int.Input:
    """The input for a seed."""
    return io.Int.Input("seed", default=0, min=0, max=LARGEST_SEED, tooltip="Equal seeds give equal results.")


def random_numbers(seed: int) -> Any:
    """numpy's generator for *seed*, of any size; the global one is left alone."""
    return numpy.random.RandomState(seed % (2**32 - 1))


def from_picture(picture: Any) -> Tensor:
    """The PIL *picture* as 1×H×W×C in 0…1."""
    levels = numpy.asarray(picture, dtype=numpy.float32) / 255.0
    return torch.from_numpy(levels if levels.ndim == 3 else levels[..., None]).unsqueeze(0)


class _ListNode(io.ComfyNode):
    """A node over one value, named *TYPE* for one kind of item; derived classes say what is done."""

    NODE_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    CATEGORY_NAME: ClassVar[str] = ""
    TELLS: ClassVar[str] = ""
    ALIASES: ClassVar[tuple[str, ...]] = ()
    IS_OLD: ClassVar[bool] = False
    TAKES_LIST: ClassVar[bool] = False
    GIVES_LIST: ClassVar[bool | None] = None  # as TAKES_LIST
    ITEMS: ClassVar[str] = ""

    @classmethod
    def item_type(cls) -> Any:
        """The type of the items, ``io.Image`` or ``io.String``."""
        raise NotImplementedError

    @classmethod
    def settings(cls) -> list[io.Input]:
        """The inputs beside the items."""
        return []

    @classmethod
    def define_schema(cls) -> io.Schema:
        kind = cls.item_type()
        gives_list = cls.TAKES_LIST if cls.GIVES_LIST is None else cls.GIVES_LIST
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.TITLE,
            category=cls.CATEGORY_NAME,
            description=cls.TELLS,
            search_aliases=list(cls.ALIASES),
            is_experimental=True,
            is_deprecated=cls.IS_OLD,
            is_input_list=cls.TAKES_LIST,
            inputs=[kind.Input(cls.ITEMS, tooltip="All items of the list." if cls.TAKES_LIST else "What is changed."), *cls.settings()],
            outputs=[kind.Output(display_name=cls.ITEMS, is_output_list=gives_list, tooltip="The result.")],
        )

    @classmethod
    def _single(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """*settings*, which nodes that take lists get in lists of one."""
        return {name: value[0] for name, value in settings.items()} if cls.TAKES_LIST else settings


class PictureNode(_ListNode):
    """A node that changes pictures: each frame by itself, unless ``WHOLE_BATCH``."""

    ITEMS = "images"
    WHOLE_BATCH: ClassVar[bool] = False

    @classmethod
    def item_type(cls) -> Any:
        """Pictures."""
        return io.Image

    @classmethod
    def change(cls, picture: Tensor, **settings: Any) -> Tensor:
        """What becomes of one frame, or of a batch where ``WHOLE_BATCH``."""
        raise NotImplementedError

    @classmethod
    def change_all(cls, pictures: list[Tensor], **settings: Any) -> Any:
        """What becomes of all frames."""
        raise NotImplementedError

    @classmethod
    def execute(cls, images: Any, **settings: Any) -> io.NodeOutput:
        """The changed pictures. Raises ``ValueError`` for what is no picture, or where frames become unequally large."""
        given = cls._single(settings)
        if cls.TAKES_LIST:
            return io.NodeOutput(cls.change_all([frame for image in images for frame in _frames(image)], **given))
        if cls.WHOLE_BATCH:
            return io.NodeOutput(cls.change(images, **given))
        return io.NodeOutput(torch.cat([cls.change(frame, **given) for frame in _frames(images)]))


class TextNode(_ListNode):
    """A node that changes texts."""

    ITEMS = "texts"
    CATEGORY_NAME = "text"

    @classmethod
    def item_type(cls) -> Any:
        """Texts."""
        return io.String

    @classmethod
    def change(cls, text: str, **settings: Any) -> str:
        """What becomes of one text."""
        raise NotImplementedError

    @classmethod
    def change_all(cls, texts: list[str], **settings: Any) -> list[str]:
        """What becomes of all texts."""
        raise NotImplementedError

    @classmethod
    def execute(cls, texts: Any, **settings: Any) -> io.NodeOutput:
        """The changed text, or the changed list."""
        given = cls._single(settings)
        return io.NodeOutput(cls.change_all(texts, **given) if cls.TAKES_LIST else cls.change(texts, **given))


def picture_of(frame: Tensor) -> Any:
    """The 8-bit PIL picture of a 1×H×W×C frame."""
    return to_picture(frame[0])


def _frames(images: Tensor) -> list[Tensor]:
    if images.ndim != 4:
        raise ValueError(f"images must be batch x height x width x channels, got the shape {tuple(images.shape)}")
    return list(images.split(1))
