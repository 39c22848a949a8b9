"""The nodes that find things of 80 kinds and draw boxes around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.box_values import Box, frames_of
from comfy_extras.image_writing import to_picture
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
numpy = lazy_module("numpy")
pil_draw = lazy_module("PIL.ImageDraw")
pil_font = lazy_module("PIL.ImageFont")
torch = lazy_module("torch")

# The 80 classes of COCO (Lin et al., 2014), in the order of detectors' outputs.
COCO_CLASSES = tuple(
    """person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;parking meter
bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;handbag;tie;suitcase;frisbee
skis;snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;surfboard;tennis racket;bottle;wine glass;cup
fork;knife;spoon;bowl;banana;apple;sandwich;orange;broccoli;carrot;hot dog;pizza;donut;cake;chair;couch
potted plant;bed;dining table;toilet;tv;laptop;mouse;remote;keyboard;cell phone;microwave;oven;toaster;sink
refrigerator;book;clock;vase;scissors;teddy bear;hair drier;toothbrush""".replace("\n", ";").split(";")
)
COLOURS = ((255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 165, 0), (128, 0, 128), (0, 255, 255), (255, 20, 147), (100, 149, 237))
LINE_WIDTH = 3
FONT_SIZE = 16
EMPTY_SIDE = 640
ALL = "all"
SIDE = 640  # of the detector's pictures
AT_ONCE = 32  # pictures
WORKING_BYTES = 96 << 20  # that one of them takes, beside the weights


class DrawBBoxes(io.ComfyNode):
    """Draws boxes onto images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DrawBBoxes",
            display_name="Draw BBoxes",
            category="image/detection",
            search_aliases=["bbox", "bounding box", "object detection", "rt_detr", "visualize detections", "coco"],
            inputs=[io.Image.Input("image", optional=True), io.BoundingBox.Input("bboxes", force_input=True)],
            outputs=[io.Image.Output("out_image")],
        )

    @classmethod
    def execute(cls, bboxes: Any, image: Tensor | None = None) -> io.NodeOutput:
        """B×H×W×3 with the boxes of each frame, those of a single frame on all; without *image* on black that holds them."""
        frames = frames_of(bboxes)
        count = 1 if image is None else len(image)
        frames = (frames * count if len(frames) == 1 else frames + [[]] * count)[:count]
        if image is None:
            image = _black(frames)
        drawn = [_drawn(to_picture(one[..., :3]), frame) for one, frame in zip(image, frames)]
        levels = numpy.stack([numpy.asarray(picture, dtype=numpy.float32) / 255.0 for picture in drawn])
        return io.NodeOutput(torch.from_numpy(levels).to(management.intermediate_device()))


def _black(frames: list[list[Box]]) -> Tensor:
    width, height = (
        max((int(box[start] + box[length]) for frame in frames for box in frame), default=EMPTY_SIDE)
        for start, length in (("x", "width"), ("y", "height"))
    )
    return torch.zeros(len(frames), height, width, 3)


def _drawn(picture: Any, boxes: list[Box]) -> Any:
    """*picture* with *boxes*, the surest last; names of classes are written only where COCO has them."""
    picture = picture.convert("RGB")
    pen, font = pil_draw.Draw(picture), pil_font.load_default(FONT_SIZE)
    for box in sorted(boxes, key=lambda one: one.get("score", 1.0)):
        label = box.get("label")
        number = COCO_CLASSES.index(label) if label in COCO_CLASSES else 0
        colour = COLOURS[number % len(COLOURS)]
        left, top = box["x"], box["y"]
        pen.rectangle([left, top, left + box["width"], top + box["height"]], outline=colour, width=LINE_WIDTH)
        if label in COCO_CLASSES:
            pen.text((left + 2, top + 2), f"{label} {box.get('score', 1.0):.2f}", fill=colour, font=font)
    return picture


class RTDETR_detect(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Finds things of 80 kinds in images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        most = "How many boxes of an image are kept, the surest first."
        return io.Schema(
            node_id="RTDETR_detect",
            display_name="Run Real-Time Detection (RT-DETR)",
            category="image/detection",
            search_aliases="bbox;bounding box;object detection;coco".split(";"),
            inputs=[
                io.Model.Input("model", display_name="model"),
                io.Image.Input("image", display_name="image"),
                io.Float.Input("threshold", display_name="threshold", default=0.5),
                io.Combo.Input("class_name", options=[ALL, *COCO_CLASSES], default=ALL, tooltip="What is looked for."),
                io.Int.Input("max_detections", display_name="max_detections", default=100, tooltip=most),
            ],
            outputs=[io.BoundingBox.Output("bboxes")],
        )

    @classmethod
    def execute(cls, model: Any, image: Tensor, threshold: float, class_name: str, max_detections: int) -> io.NodeOutput:
        """Boxes for each image, with "label" and "score", the surest first. Raises ``ValueError`` for a model of another kind."""
        network = model.model.diffusion_model
        if not hasattr(network, "backbone") or not hasattr(network, "decoder"):
            raise ValueError(f"{model.model.said()} finds no things: load a diffusion model of RT-DETR v4")
        management.load_models_gpu([model], memory_required=AT_ONCE * WORKING_BYTES)
        frames = []
        for batch in image.split(AT_ONCE):
            management.throw_exception_if_processing_interrupted()
            scaled = comfy.utils.common_upscale(batch[..., :3].movedim(-1, 1), SIDE, SIDE, "bilinear", "disabled")
            found = network(scaled.to(model.load_device, model.model.get_dtype_inference()), (image.shape[2], image.shape[1]))
            frames += [_boxes(one, threshold, class_name)[:max_detections] for one in found]
        return io.NodeOutput(frames)


def _boxes(found: dict[str, Tensor], threshold: float, class_name: str) -> list[Box]:
    boxes = []
    for label, score, (left, top, right, bottom) in zip(*(found[name].float().tolist() for name in ("labels", "scores", "boxes"))):
        name = COCO_CLASSES[int(label)]
        if score > threshold and class_name in (ALL, name):
            boxes.append({"x": left, "y": top, "width": right - left, "height": bottom - top, "label": name, "score": score})
    return boxes


comfy_entrypoint = extension_of(RTDETR_detect, DrawBBoxes)
