"""The node that turns a camera's place around a subject into a 3D camera and into the words that multi-angle LoRAs are trained with."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

# In the order in which the camera goes round the subject, each an eighth of the circle wide and centred on its multiple of 45 degrees.
DIRECTIONS = (
    "front",
    "front-right quarter",
    "right side",
    "back-right quarter",
    "back",
    "back-left quarter",
    "left side",
    "front-left quarter",
)
# The names of ranges, and where one ends and the next begins.
HEIGHTS = (("low-angle shot", "eye-level shot", "elevated shot", "high-angle shot"), (-15, 15, 45))
DISTANCES = (("wide shot", "medium shot", "close-up"), (2, 6))
# The page's preview shows this scene: a cube in the origin, seen from this far with this lens; zooming narrows the lens.
ORBIT_RADIUS, FIELD_OF_VIEW_DEGREES, LARGEST_MAGNIFICATION = 6.0, 35.0, 1.875
CLOSEST = 10.0


def shot_description(azimuth_degrees: int, elevation_degrees: int, zoom: float) -> str:
    """The shot in words, such as "front view eye-level shot medium shot"."""
    eighth = math.floor(azimuth_degrees / 45 + 0.5) % len(DIRECTIONS)
    heights, distances = (
        names[bisect_right(borders, value)] for (names, borders), value in ((HEIGHTS, elevation_degrees), (DISTANCES, zoom))
    )
    return f"{DIRECTIONS[eighth]} view {heights} {distances}"


def orbiting_camera(azimuth_degrees: int, elevation_degrees: int, zoom: float) -> dict[str, Any]:
    """The camera that looks at the origin from there, as 3D nodes take it (Y up; azimuth 0 is on the Z axis, 90 on the X axis)."""
    azimuth, elevation = math.radians(azimuth_degrees), math.radians(elevation_degrees)
    level = ORBIT_RADIUS * math.cos(elevation)
    return {
        "position": {"x": level * math.sin(azimuth), "y": ORBIT_RADIUS * math.sin(elevation), "z": level * math.cos(azimuth)},
        "target": {"x": 0.0, "y": 0.0, "z": 0.0},
        "zoom": 1.0 + (LARGEST_MAGNIFICATION - 1.0) * zoom / CLOSEST,
        "cameraType": "perspective",
        "fov": FIELD_OF_VIEW_DEGREES,
    }


class CameraAngle(io.ComfyNode):
    """Describes where the camera stands; the picture is only for the page's preview."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CameraAngle",
            display_name="Compose Camera Angle Prompt",
            category="3d",
            description="A camera's place around the subject, as a camera for 3D nodes and in words for a prompt.",
            search_aliases=["multi angle", "camera view", "orbit camera", "shot angle", "camera prompt"],
            inputs=[
                io.Int.Input(
                    "horizontal_angle",
                    default=0,
                    min=0,
                    max=360,
                    step=1,
                    tooltip="In degrees: 0 is the front, 90 the subject's right side.",
                ),
                io.Int.Input("vertical_angle", default=0, min=-30, max=60, step=1, tooltip="In degrees; below 0 the camera looks up."),
                io.Float.Input("zoom", default=5.0, min=0.0, max=CLOSEST, step=0.1, tooltip="From 0, a wide shot, to 10, a close-up."),
                io.Image.Input("image", optional=True, tooltip="What the preview shows on the front of the cube."),
                io.String.Input("view", default="", optional=True, socketless=True, extra_dict={"widgetType": "CAMERA_ANGLE_VIEW"}),
            ],
            outputs=[io.Load3DCamera.Output(display_name="camera_info"), io.String.Output(display_name="prompt")],
        )

    @classmethod
    def execute(cls, horizontal_angle: int, vertical_angle: int, zoom: float, image: Any = None, view: str = "") -> io.NodeOutput:
        """The camera and the words. Linked values beyond an input's bounds count as the bound."""
        place = (min(max(horizontal_angle, 0), 360), min(max(vertical_angle, -30), 60), min(max(zoom, 0.0), CLOSEST))
        return io.NodeOutput(orbiting_camera(*place), shot_description(*place))


comfy_entrypoint = extension_of(CameraAngle)
