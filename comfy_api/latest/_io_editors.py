"""The types with their own editor on the node: colours, boxes, curves, ranges, the camera and the image comparer."""

from typing import Any, TypedDict

from ._input.curve_types import CurveInput, CurvePoint
from ._input.range_types import RangeInput
from ._io_base import ComfyTypeI, ComfyTypeIO, WidgetInput, comfytype


class _EditorInput(WidgetInput):
    """A widget that fills its node and by default has no socket. ``EMPTY`` builds its value if there is no default."""

    @staticmethod
    def EMPTY() -> Any:  # noqa: N802 - overridden by each editor
        """Build the value to start with."""
        return None

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        socketless: bool | None = True,
        default: Any = None,
        advanced: bool | None = None,
    ) -> None:
        value = self.EMPTY() if default is None else default
        super().__init__(id, display_name, optional, tooltip, default=value, socketless=socketless, advanced=advanced)


@comfytype(io_type="WEBCAM")
class Webcam(ComfyTypeIO):
    """A picture taken by the page's camera."""

    Type = str

    class Input(WidgetInput):
        """The camera widget."""

        Type = str

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | None = None,
            socketless: bool | None = None,
            extra_dict: dict | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, default, socketless, None, None, extra_dict, raw_link, advanced)


@comfytype(io_type="IMAGECOMPARE")
class ImageCompare(ComfyTypeI):
    """The slider that compares two images."""

    Type = dict

    class Input(WidgetInput):
        """The comparer widget."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless=socketless, advanced=advanced)


@comfytype(io_type="COLOR")
class Color(ComfyTypeIO):
    """A colour as ``#rrggbb``."""

    Type = str

    class Input(WidgetInput):
        """The colour picker."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
            default: str = "#ffffff",
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, default=default, socketless=socketless, advanced=advanced)


@comfytype(io_type="COLORS")
class Colors(ComfyTypeIO):
    """Several colours."""

    Type = list[str]

    class Input(_EditorInput):
        """A row of colour pickers."""

        EMPTY = list


@comfytype(io_type="COMPOSITOR")
class Compositor(ComfyTypeIO):
    """The arrangement of the layers of a composition."""

    class LayerState(TypedDict, total=False):
        """The canvas and the place and look of each layer."""

        version: int
        canvas: dict
        background: dict
        inputs: list[str]
        order: list[int]
        layers: list[dict]

    Type = LayerState

    class Input(_EditorInput):
        """The layer editor."""

        EMPTY = dict


@comfytype(io_type="BOUNDING_BOX")
class BoundingBox(ComfyTypeIO):
    """A rectangle in pixels."""

    class BoundingBoxDict(TypedDict):
        """Upper left corner and size."""

        width: int
        height: int
        x: int
        y: int

    Type = BoundingBoxDict

    class Input(WidgetInput):
        """The rectangle editor; *component* names another editor of the page."""

        PRINTED = ("component",)

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict | None = None,
            component: str | None = None,
            force_input: bool | None = None,
        ) -> None:
            whole = {"x": 0, "y": 0, "width": 512, "height": 512}
            super().__init__(
                id,
                display_name,
                optional,
                tooltip,
                default=whole if default is None else default,
                socketless=socketless,
                force_input=force_input,
            )
            self.component = component or None


@comfytype(io_type="BOUNDING_BOXES")
class BoundingBoxes(ComfyTypeIO):
    """Several rectangles, each with data of its own."""

    class BoundingBoxWithMetadata(BoundingBox.BoundingBoxDict):
        """A rectangle with data about it."""

        metadata: dict

    Type = list[BoundingBoxWithMetadata]

    class Input(_EditorInput):
        """The editor for several rectangles."""

        EMPTY = list


@comfytype(io_type="CURVE")
class Curve(ComfyTypeIO):
    """A curve through points in the unit square."""

    CurvePoint = CurvePoint
    Type = CurveInput

    class Input(_EditorInput):
        """The curve editor; its default is a list of points."""

        @staticmethod
        def EMPTY() -> list[tuple[float, float]]:  # noqa: N802
            """The identity."""
            return [(0.0, 0.0), (1.0, 1.0)]

        def as_dict(self) -> dict[str, Any]:
            """The printed options; the points are wrapped together with their interpolation."""
            points = [list(point) for point in self.default]
            return super().as_dict() | {"default": {"points": points, "interpolation": "monotone_cubic"}}


@comfytype(io_type="RANGE")
class Range(ComfyTypeIO):
    """An interval with an optional midpoint, as in a levels control."""

    Type = RangeInput

    class Input(_EditorInput):
        """The levels editor."""

        PRINTED = ("display", "gradient_stops", "show_midpoint", "midpoint_scale", "value_min", "value_max")

        @staticmethod
        def EMPTY() -> dict[str, float]:  # noqa: N802
            """The whole unit interval."""
            return {"min": 0.0, "max": 1.0}

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict | None = None,
            display: str | None = None,
            gradient_stops: list | None = None,
            show_midpoint: bool | None = None,
            midpoint_scale: str | None = None,
            value_min: float | None = None,
            value_max: float | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default, advanced)
            self.value_min, self.value_max = value_min, value_max
            self.show_midpoint, self.midpoint_scale = show_midpoint, midpoint_scale
            self.display, self.gradient_stops = display, gradient_stops
