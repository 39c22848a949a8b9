"""Annotations and base classes for V1 nodes."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, Literal, TypedDict


class StrEnum(str, Enum):  # noqa: UP042 - upstream's name; members print as their value
    """An enumeration of strings."""

    def __str__(self) -> str:
        return self.value


class IO(StrEnum):
    """The names of V1 socket types. Comparing with ``!=`` follows links: ``ANY`` fits everything, and a union fits its parts."""

    ANY = "*"
    BOOLEAN = "BOOLEAN"
    COMBO = "COMBO"
    FLOAT = "FLOAT"
    INT = "INT"
    STRING = "STRING"
    NUMBER = "FLOAT,INT"
    PRIMITIVE = "STRING,FLOAT,INT,BOOLEAN"

    IMAGE = "IMAGE"
    LATENT = "LATENT"
    MASK = "MASK"

    MODEL = "MODEL"
    CLIP = "CLIP"
    VAE = "VAE"
    CONDITIONING = "CONDITIONING"
    CONTROL_NET = "CONTROL_NET"
    CLIP_VISION = "CLIP_VISION"
    CLIP_VISION_OUTPUT = "CLIP_VISION_OUTPUT"
    STYLE_MODEL = "STYLE_MODEL"
    GLIGEN = "GLIGEN"
    UPSCALE_MODEL = "UPSCALE_MODEL"
    LORA_MODEL = "LORA_MODEL"
    LOSS_MAP = "LOSS_MAP"

    SAMPLER = "SAMPLER"
    SIGMAS = "SIGMAS"
    GUIDER = "GUIDER"
    NOISE = "NOISE"

    AUDIO = "AUDIO"
    VIDEO = "VIDEO"
    WEBCAM = "WEBCAM"
    POINT = "POINT"
    FACE_ANALYSIS = "FACE_ANALYSIS"
    BBOX = "BBOX"
    SEGS = "SEGS"

    def __ne__(self, other: object) -> bool:
        if not isinstance(other, str):
            return True
        mine, theirs = str(self.value), str.__str__(other)
        if "*" in (mine, theirs):
            return False
        accepted, offered = set(mine.split(",")), set(theirs.split(","))
        return not (accepted <= offered or offered <= accepted)

    __hash__ = str.__hash__


class RemoteInputOptions(TypedDict):
    """A choice whose options come from a route; times in milliseconds."""

    route: str
    refresh_button: bool
    control_after_refresh: Literal["first", "last"]
    timeout: int
    max_retries: int
    refresh: int


class MultiSelectOptions(TypedDict, total=False):
    """How a choice of several is shown."""

    placeholder: str
    chip: bool


class InputTypeOptions(TypedDict, total=False):
    """The second item of an entry of ``INPUT_TYPES``; which options apply depends on the type."""

    # any type
    default: Any
    tooltip: str
    forceInput: bool
    defaultInput: bool
    lazy: bool
    rawLink: bool
    socketless: bool
    advanced: bool
    widgetType: str
    # numbers
    min: float
    max: float
    step: float
    round: float
    gradient_stops: list[dict]
    # switches
    label_on: str
    label_off: str
    # text
    multiline: bool
    placeholder: str
    dynamicPrompts: bool
    # choices
    options: list[str | int | float]
    image_upload: bool
    image_folder: Literal["input", "output", "temp"]
    remote: RemoteInputOptions
    multi_select: MultiSelectOptions
    control_after_generate: bool


class HiddenInputTypeDict(TypedDict, total=False):
    """The ``hidden`` section: what the server fills in."""

    node_id: Literal["UNIQUE_ID"]
    unique_id: Literal["UNIQUE_ID"]
    prompt: Literal["PROMPT"]
    extra_pnginfo: Literal["EXTRA_PNGINFO"]
    dynprompt: Literal["DYNPROMPT"]


class InputTypeDict(TypedDict, total=False):
    """What ``INPUT_TYPES`` returns: by section, input names with their type and options."""

    required: dict[str, tuple[Any, InputTypeOptions]]
    optional: dict[str, tuple[Any, InputTypeOptions]]
    hidden: HiddenInputTypeDict


class ComfyNodeABC(ABC):
    """A V1 node: ``INPUT_TYPES`` says what it takes, ``RETURN_TYPES`` what it gives, and ``FUNCTION`` names the method that does it.

    The lists ``OUTPUT_IS_LIST``, ``RETURN_NAMES`` and ``OUTPUT_TOOLTIPS`` run parallel to ``RETURN_TYPES``.
    """

    DESCRIPTION: str
    CATEGORY: str
    EXPERIMENTAL: bool
    DEPRECATED: bool
    DEV_ONLY: bool
    API_NODE: bool | None
    OUTPUT_NODE: bool
    INPUT_IS_LIST: bool
    OUTPUT_IS_LIST: tuple[bool, ...]
    RETURN_TYPES: tuple[IO, ...]
    RETURN_NAMES: tuple[str, ...]
    OUTPUT_TOOLTIPS: tuple[str, ...]
    FUNCTION: str

    @classmethod
    @abstractmethod
    def INPUT_TYPES(cls) -> InputTypeDict:  # noqa: N802 - the public name
        """The inputs by section."""
        return {"required": {}}


class CheckLazyMixin:
    """Asks for every lazy input that has no value yet."""

    def check_lazy_status(self, **kwargs: Any) -> list[str]:
        """The names among *kwargs* whose value is None."""
        return [name for name, value in kwargs.items() if value is None]


class FileLocator(TypedDict):
    """A file in one of the server's folders."""

    filename: str
    subfolder: str
    type: Literal["input", "output", "temp"]
