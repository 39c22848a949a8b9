"""The types with a widget on the node (booleans, numbers, text and choices), and the options of their widgets."""

from enum import Enum
from typing import Any

from comfy_api.internal.class_tools import prune_dict

from ._io_base import ComfyTypeI, ComfyTypeIO, Output, WidgetInput, comfytype, plain


class FolderType(str, Enum):  # noqa: UP042 - members are compared with and printed as plain strings
    """The folder that a file is in: input, output or temp."""

    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):  # noqa: UP042
    """The kind of upload button beside a choice of files."""

    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class NumberDisplay(str, Enum):  # noqa: UP042
    """The way a number is shown."""

    number = "number"
    slider = "slider"
    gradient_slider = "gradientslider"


class ControlAfterGenerate(str, Enum):  # noqa: UP042
    """What the page does with a value after each queued prompt."""

    fixed = "fixed"
    increment = "increment"
    decrement = "decrement"
    randomize = "randomize"


class RemoteOptions:
    """A choice whose options the page fetches from *route* of this server.

    *timeout* and *refresh* (how long the answer is kept) are milliseconds; *control_after_refresh* is ``first`` or ``last``.
    """

    def __init__(
        self,
        route: str,
        refresh_button: bool,
        control_after_refresh: str = "first",
        timeout: int | None = None,
        max_retries: int | None = None,
        refresh: int | None = None,
    ) -> None:
        self.route = route
        self.refresh_button = refresh_button
        self.control_after_refresh = control_after_refresh
        self.timeout = timeout
        self.max_retries = max_retries
        self.refresh = refresh

    def as_dict(self) -> dict[str, Any]:
        """The options as printed; those that are None are left out."""
        return prune_dict(vars(self))


@comfytype(io_type="BOOLEAN")
class Boolean(ComfyTypeIO):
    """True or false."""

    Type = bool

    class Input(WidgetInput):
        """A switch; *label_on* and *label_off* are the names of its positions."""

        PRINTED = ("label_on", "label_off")

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict, raw_link, advanced
            )
            self.label_on = label_on
            self.label_off = label_off


@comfytype(io_type="INT")
class Int(ComfyTypeIO):
    """A whole number."""

    Type = int

    class Input(WidgetInput):
        """A whole number between *min* and *max*."""

        PRINTED = ("min", "max", "step", "control_after_generate", ("display_mode", "display"))

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: int | None = None,
            min: int | None = None,
            max: int | None = None,
            step: int | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict, raw_link, advanced
            )
            self.min = min
            self.max = max
            self.step = step
            self.control_after_generate = control_after_generate
            self.display_mode = display_mode


@comfytype(io_type="FLOAT")
class Float(ComfyTypeIO):
    """A real number."""

    Type = float

    class Input(WidgetInput):
        """A real number between *min* and *max*, rounded to multiples of *round*."""

        PRINTED = ("min", "max", "step", "round", ("display_mode", "display"), "gradient_stops")

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: float | None = None,
            min: float | None = None,
            max: float | None = None,
            step: float | None = None,
            round: float | None = None,
            display_mode: NumberDisplay | None = None,
            gradient_stops: list[dict] | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict, raw_link, advanced
            )
            self.min, self.max = min, max
            self.step, self.round = step, round
            self.display_mode = display_mode
            self.gradient_stops = gradient_stops


@comfytype(io_type="STRING")
class String(ComfyTypeIO):
    """Text."""

    Type = str

    class Input(WidgetInput):
        """Text, in one line or several; *dynamic_prompts* lets the page expand ``{a|b}``."""

        PRINTED = ("multiline", "placeholder", ("dynamic_prompts", "dynamicPrompts"))

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict, raw_link, advanced
            )
            self.multiline = multiline
            self.placeholder = placeholder
            self.dynamic_prompts = dynamic_prompts


@comfytype(io_type="COMBO")
class Combo(ComfyTypeIO):
    """One of a list of choices."""

    Type = str

    class Input(WidgetInput):
        """A list to choose from; *options* is a list or an ``Enum`` class, *upload* adds a button that uploads a file."""

        PRINTED = ("multiselect", "options", "control_after_generate")
        Type = str

        def __init__(
            self,
            id: str,
            options: list[str] | list[int] | type[Enum] | None = None,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | int | list[str] | Enum | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            remote: RemoteOptions | None = None,
            socketless: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, plain(default), socketless, None, None, extra_dict, raw_link, advanced
            )
            self.multiselect = False
            self.options: Any = options
            if isinstance(options, type) and issubclass(options, Enum):
                self.options = [member.value for member in options]
            self.control_after_generate = control_after_generate
            self.upload = upload
            self.image_folder = image_folder
            self.remote = remote

        def as_dict(self) -> dict[str, Any]:
            """The printed options, with the upload flag under its own name."""
            extra = {"image_folder": plain(self.image_folder), "remote": self.remote.as_dict() if self.remote else None}
            if self.upload is not None:
                extra[plain(self.upload)] = True
            return super().as_dict() | prune_dict(extra)

    class Output(Output):
        """A choice that is passed on; *options* lists its possible values."""

        def __init__(
            self,
            id: str | None = None,
            display_name: str | None = None,
            options: list[str] | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.options = [] if options is None else options


@comfytype(io_type="COMBO")
class MultiCombo(ComfyTypeI):
    """Any number of a list of choices."""

    Type = list[str]

    class Input(Combo.Input):
        """A list to choose several from; *chip* shows the chosen ones as chips."""

        def __init__(
            self,
            id: str,
            options: list[str],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: list[str] | None = None,
            placeholder: str | None = None,
            chip: bool | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            socketless: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id,
                options,
                display_name,
                optional,
                tooltip,
                lazy,
                default,
                control_after_generate,
                socketless=socketless,
                extra_dict=extra_dict,
                raw_link=raw_link,
                advanced=advanced,
            )
            self.multiselect = True
            self.placeholder = placeholder
            self.chip = chip

        def as_dict(self) -> dict[str, Any]:
            """The printed options; the page wants ``multi_select`` as an object, older clients ``multiselect`` as a flag."""
            return super().as_dict() | {"multi_select": prune_dict({"placeholder": self.placeholder, "chip": self.chip})}
