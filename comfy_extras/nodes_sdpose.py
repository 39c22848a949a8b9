"""The nodes of SDPose: points of people in images, how they are drawn, and boxes cut out of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.box_values import Box, frames_of
from comfy_extras.node_extension import extension_of
from comfy_extras.nodes_lotus import LotusConditioning
from comfy_extras.pose_values import Frame, PoseType, Style, drawn, person_of, points_of

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
numpy = lazy_module("numpy")
sample = lazy_module("comfy.sample")
torch = lazy_module("torch")

EMPTY_SIDE = 64  # of the picture of no frames
# Where nothing can be cut: a square of this share of the shorter side, in the middle, this share of the height from the top.
FALLBACK_SIDE, FALLBACK_TOP = 0.3, 0.1
Corners = tuple[int, int, int, int]


class CropByBBoxes(io.ComfyNode):
    """Cuts what the boxes of each frame enclose out of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CropByBBoxes",
            display_name="Crop By Bounding Boxes",
            category="image/transform",
            description="Cuts the region that the boxes of each image enclose and scales it to one size.",
            search_aliases=["crop", "face crop", "bbox crop", "pose", "bounding box"],
            inputs=[
                io.Image.Input("image"),
                io.BoundingBox.Input("bboxes", force_input=True),
                io.Int.Input("output_width", default=512, min=64, max=4096, step=8, tooltip="Width of the results in pixels."),
                io.Int.Input("output_height", default=512, min=64, max=4096, step=8, tooltip="Height of the results in pixels."),
                io.Int.Input("padding", default=0, min=0, max=1024, step=1, tooltip="Pixels to cut beyond the boxes on each side."),
                io.Combo.Input("keep_aspect", options=["stretch", "pad"], default="stretch", tooltip="Fill the size, or add black bars."),
            ],
            outputs=[io.Image.Output(tooltip="One image for each frame that has boxes.")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, bboxes: Any, output_width: int, output_height: int, padding: int, keep_aspect: str = "stretch"
    ) -> io.NodeOutput:
        """N×*output_height*×*output_width*×C, one for each frame with boxes; *image* itself where no frame has any."""
        frames = frames_of(bboxes)
        fit = _padded if keep_aspect == "pad" else _stretched
        crops = []
        for number, one in enumerate(image):
            boxes = frames[min(number, len(frames) - 1)]
            if boxes:
                left, top, right, bottom = _corners(boxes, padding, one.shape[1], one.shape[0])
                crops.append(fit(one[top:bottom, left:right].movedim(-1, 0)[None], output_width, output_height))
        return io.NodeOutput(torch.cat(crops).movedim(1, -1) if crops else image)


def _corners(boxes: list[Box], padding: int, width: int, height: int) -> Corners:
    left, top = (max(0, min(int(box[start]) for box in boxes) - padding) for start in ("x", "y"))
    right = min(width, max(int(box["x"] + box["width"]) for box in boxes) + padding)
    bottom = min(height, max(int(box["y"] + box["height"]) for box in boxes) + padding)
    if left < right and top < bottom:
        return left, top, right, bottom
    side = max(1, int(min(width, height) * FALLBACK_SIDE))
    left, top = max(0, (width - side) // 2), int(height * FALLBACK_TOP)
    return left, top, min(width, left + side), min(height, top + side)


def _stretched(picture: Tensor, width: int, height: int) -> Tensor:
    return comfy.utils.common_upscale(picture, width, height, "area", "disabled")


def _padded(picture: Tensor, width: int, height: int) -> Tensor:
    scale = min(width / picture.shape[3], height / picture.shape[2])
    sides = [max(1, round(side * scale)) for side in (picture.shape[3], picture.shape[2])]
    left, top = (width - sides[0]) // 2, (height - sides[1]) // 2
    around = (left, width - sides[0] - left, top, height - sides[1] - top)
    return torch.nn.functional.pad(_stretched(picture, *sides), around)


class SDPoseKeypointExtractor(io.ComfyNode):
    """Finds the points of people's bodies, faces, hands and feet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SDPoseKeypointExtractor",
            display_name="SDPose Keypoint Extractor",
            category="image/detection",
            description="Finds 133 points of a person in each image, or in each box, with a model of SDPose.",
            search_aliases="openpose;pose detection;preprocessor;keypoints;sdpose".split(";"),
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                io.Image.Input("image"),
                io.Int.Input("batch_size", default=16, min=1, max=10000, step=1),
                io.BoundingBox.Input(
                    "bboxes", optional=True, force_input=True, tooltip="A box around each person; without, the whole image."
                ),
            ],
            outputs=[PoseType.Output("keypoints", tooltip="In OpenPose's form, a frame for each image.")],
        )

    @classmethod
    def execute(cls, model: Any, vae: Any, image: Tensor, batch_size: int, bboxes: Any = None) -> io.NodeOutput:
        """Frames. Raises ``ValueError`` for a model of another kind."""
        finder = _PointFinder(model, vae)
        progress = comfy.utils.ProgressBar(len(image))
        people: list[list[Any]] = []
        if bboxes is None:
            for batch in image.split(batch_size):
                people += [[found] for found in finder.find(batch)]
                progress.update(len(batch))
        else:
            frames = frames_of(bboxes)
            for number, one in enumerate(image):
                people.append(
                    [found for part, place in _cut(one, frames[min(number, len(frames) - 1)]) for found in finder.find(part, place)]
                )
                progress.update(1)
        size = {"canvas_width": image.shape[2], "canvas_height": image.shape[1]}
        return io.NodeOutput([{**size, "people": found} for found in people])


def _cut(image: Tensor, boxes: list[Box]) -> list[tuple[Tensor, tuple[int, int]]]:
    """What lies in each of *boxes*, 1 x height x width x channels, with its left upper corner; the whole *image* if there are none."""
    if not boxes:
        return [(image[None], (0, 0))]
    parts = []
    for box in boxes:
        left, top = max(0, int(box["x"])), max(0, int(box["y"]))
        part = image[None, top : max(0, int(box["y"] + box["height"])), left : max(0, int(box["x"] + box["width"]))]
        if part.numel():
            parts.append((part, (left, top)))
    return parts


class _PointFinder:
    """A model of SDPose and its autoencoder. The features that its head takes are those of its last blocks, one step from the latent."""

    def __init__(self, model: Any, vae: Any) -> None:
        self.head: Any = getattr(model.model.diffusion_model, "heatmap_head", None)
        if self.head is None:
            raise ValueError(f"{model.model.said()} finds no points of people: load a checkpoint of SDPose")
        self.vae, self.model = vae, model.clone()
        self.text = LotusConditioning.execute().args[0]
        self.features: Tensor | None = None
        self.model.set_model_output_block_patch(self._keep)

    def _keep(self, h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if h.shape[1] == self.head.in_channels:
            self.features = h.clone()
        return h, skip

    def find(self, pictures: Tensor, corner: tuple[int, int] = (0, 0)) -> list[dict[str, list[float]]]:
        """Someone in each of *pictures* (B x height x width x channels), whose left upper corner is at *corner*."""
        height, width = pictures.shape[1:3]
        sides = [4 * cells for cells in self.head.heatmap_size]
        method = "area" if sides[0] <= width and sides[1] <= height else "bilinear"
        scaled = comfy.utils.common_upscale(pictures[..., :3].movedim(-1, 1).float(), sides[0], sides[1], method, "disabled")
        latent = self.vae.encode(scaled.movedim(1, -1))
        quiet = {"disable_noise": True, "disable_pbar": True}
        sample.sample(self.model, torch.zeros_like(latent), 1, 1.0, "euler", "simple", self.text, self.text, latent, **quiet)
        return [self._person(places, scores, (width / sides[0], height / sides[1]), corner) for places, scores in zip(*self._points())]

    def _points(self) -> Any:
        features, self.features = self.features, None
        with torch.inference_mode():
            return self.head(features)

    @staticmethod
    def _person(places: Any, scores: Any, scale: tuple[float, float], corner: tuple[int, int]) -> dict[str, list[float]]:
        there = places[:, :1] >= 0
        return person_of(numpy.where(there, places * numpy.float32(scale) + numpy.float32(corner), -1.0), scores)


class SDPoseDrawKeypoints(io.ComfyNode):
    """Draws points of people as OpenPose does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        parts = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": False}
        return io.Schema(
            node_id="SDPoseDrawKeypoints",
            display_name="SDPose Draw Keypoints",
            category="image/detection",
            search_aliases="openpose;pose detection;preprocessor;keypoints;pose".split(";"),
            inputs=[
                PoseType.Input("keypoints"),
                *(io.Boolean.Input(name, default=default) for name, default in parts.items()),
                *(io.Int.Input(name, default=width, min=1, max=10, step=1) for name, width in (("stick_width", 4), ("face_point_size", 3))),
                io.Float.Input("score_threshold", default=0.3, min=0.0, max=1.0, step=0.01),
                io.Boolean.Input("draw_head", default=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        keypoints: list[Frame],
        draw_body: bool,
        draw_hands: bool,
        draw_face: bool,
        draw_feet: bool,
        stick_width: int,
        face_point_size: int,
        score_threshold: float,
        draw_head: bool = True,
    ) -> io.NodeOutput:
        """Frames x height x width x 3, on black."""
        if not keypoints:
            return io.NodeOutput(torch.zeros(1, EMPTY_SIDE, EMPTY_SIDE, 3))
        style = Style(draw_body, draw_hands, draw_face, draw_feet, draw_head, stick_width, face_point_size, score_threshold)
        levels = torch.from_numpy(numpy.stack([drawn(frame, style) for frame in keypoints]))
        return io.NodeOutput(levels.to(management.intermediate_device(), management.intermediate_dtype()) / 255)


class SDPoseFaceBBoxes(io.ComfyNode):
    """Boxes around the faces that points show."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SDPoseFaceBBoxes",
            display_name="SDPose Face Bounding Boxes",
            category="image/detection",
            search_aliases="face bbox;face bounding box;pose;keypoints".split(";"),
            inputs=[
                PoseType.Input("keypoints"),
                io.Float.Input("scale", default=1.5, min=1.0, max=10.0, step=0.1, tooltip="How much larger than the face a box's area is."),
                io.Boolean.Input("force_square", default=True, tooltip="Make boxes squares."),
            ],
            outputs=[io.BoundingBox.Output("bboxes", tooltip="For each frame.")],
        )

    @classmethod
    def execute(cls, keypoints: list[Frame], scale: float, force_square: bool) -> io.NodeOutput:
        """Boxes per frame."""
        frames = []
        for frame in keypoints:
            size = (frame["canvas_width"], frame["canvas_height"])
            faces = [points_of(person, "face_keypoints_2d", 70)[:, :2] for person in frame["people"] if person.get("face_keypoints_2d")]
            frames.append([box for face in faces if (box := _face_box(face, size, scale, force_square)) is not None])
        return io.NodeOutput(frames)


def _face_box(points: Any, size: tuple[int, int], scale: float, square: bool) -> Box | None:
    """The box around *points*, of *scale* times their area, most of which is added above; None where they have none."""
    least, most = points.min(axis=0), points.max(axis=0)
    if (most <= least).any():
        return None
    more = (most - least) * (scale**0.5 - 1)
    left, right = max(least[0] - more[0] / 2, 0), min(most[0] + more[0] / 2, size[0])
    top, bottom = max(least[1] - more[1] * 3 / 4, 0), min(most[1] + more[1] / 4, size[1])
    left, top, right, bottom = map(int, (left, top, right, bottom))
    if right <= left or bottom <= top:
        return None
    side = max(right - left, bottom - top)
    if square and (right - left, bottom - top) != (side, side):
        half, middle = side // 2, ((left + right) // 2, (top + bottom) // 2)
        right, bottom = (min(limit, max(0, at - half) + side) for limit, at in zip(size, middle))
        left, top = max(0, right - side), max(0, bottom - side)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


comfy_entrypoint = extension_of(SDPoseDrawKeypoints, SDPoseKeypointExtractor, SDPoseFaceBBoxes, CropByBBoxes)
