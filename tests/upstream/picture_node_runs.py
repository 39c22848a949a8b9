"""Runs the nodes for pictures of the ``comfy_extras`` that Python finds, and saves their results.

    python picture_node_runs.py RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. The file holds a dict of tensors by case, or the error's text.
"""

import asyncio
import importlib
import json
import sys
import tempfile
import types

import numpy
import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import folder_paths  # noqa: E402

MODULES = ("canny", "post_processing", "images", "curve", "text_overlay", "bounding_boxes", "sdpose", "rtdetr", "dataset", "compositor")
BOXES = [{"x": 6, "y": 9, "width": 30, "height": 20}, {"x": 20, "y": 20, "width": 24, "height": 30}]
DOCUMENTED = [{**BOXES[0], "metadata": {"type": "text", "text": "sign", "desc": "a sign", "palette": ["#a0b0c0", "#102030"]}}, BOXES[1]]


def node_classes():
    """The classes of all MODULES by node id, however a module publishes them."""
    found = {}
    for name in MODULES:
        try:
            module = importlib.import_module(f"comfy_extras.nodes_{name}")
        except ModuleNotFoundError:
            continue
        if hasattr(module, "comfy_entrypoint"):
            listed = asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())
            found |= {one.GET_SCHEMA().node_id: one for one in listed}
        else:
            found |= module.NODE_CLASS_MAPPINGS
    return found


def image(seed, count=1, height=48, width=64):
    """Smooth colours with some noise, so that there are edges and level areas."""
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 8, generator=numbers)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").movedim(1, -1)
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=numbers)).clamp(0, 1)


def mask():
    """A disc in the middle."""
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    return ((rows - 20) ** 2 + (columns - 30) ** 2 < 15**2).float().unsqueeze(0)


def saved(node, chosen):
    """What Save Image (Advanced) writes, read again."""
    node = type("Saving", (node,), {"hidden": types.SimpleNamespace(prompt={"1": "x"}, extra_pnginfo={"workflow": [1, 2]})})
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.output_directory = folder
        name = node.execute(image(3), "x", chosen).ui["images"][0]["filename"]
        if chosen["format"] == "exr":
            import OpenEXR

            with OpenEXR.File(f"{folder}/{name}") as file:
                header = {key: repr(file.header()[key]) for key in ("prompt", "workflow", "chromaticities")}
                return torch.from_numpy(file.channels()["RGB"].pixels.copy()), json.dumps(header)
        import av
        from PIL import Image

        with Image.open(f"{folder}/{name}") as opened:
            opened.load()
            texts = json.dumps(opened.text)
        with av.open(f"{folder}/{name}") as container:
            return torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb48le").astype(numpy.float64)), texts


def cases(nodes):
    """(name, function) of every case."""
    for low, high in ((0.1, 0.2), (0.4, 0.8), (0.05, 0.9)):
        yield f"canny {low} {high}", lambda low=low, high=high: nodes["Canny"].execute(image(1, 2), low, high).args[0]
    for method in ("reinhard_lab", "mkl_lab", "histogram"):
        for stats in ({"source_stats": "per_frame"}, {"source_stats": "uniform"}, {"source_stats": "target_frame", "target_index": 1}):
            for strength, references in ((1.0, 1), (0.6, 2)):

                def transfer(method=method, stats=stats, strength=strength, references=references):
                    return nodes["ColorTransfer"].execute(image(1, 3), image(2, references, 32, 32), method, stats, strength).args[0]

                yield f"colours {method} {stats['source_stats']} {strength}", transfer
    for which, own in (
        ("mask", mask()),
        ("inverted", 1 - mask()),
        ("small", torch.nn.functional.interpolate(mask()[None], size=(24, 32))[0]),
    ):
        for width, height, padding, grow in ((64, 64, 1.0, 0), (64, 96, 1.3, 3), (128, 64, 2.0, -2)):

            def crop(own=own, width=width, height=height, padding=padding, grow=grow):
                return nodes["ImageCropToMask"].execute(image(1), own, width, height, padding, grow, "#206040").args[0]

            yield f"crop {which} {width}x{height} {padding} {grow}", crop
    yield "histogram", lambda: torch.tensor(nodes["ImageHistogram"].execute(image(4)).args)
    for position, align, size, outline in (("top", "left", 8.0, True), ("bottom", "center", 12.0, False), ("top", "right", 50.0, True)):

        def overlay(position=position, align=align, size=size, outline=outline):
            text = "Several words, among them averyveryverylongone\\nand a second line"
            return nodes["TextOverlay"].execute(image(1, 2, 200, 160), text, size, "#ffcc00", position, align, outline).args[0]

        yield f"text {position} {align} {size} {outline}", overlay
    for aspect in ("stretch", "pad"):
        yield f"cut {aspect}", lambda aspect=aspect: nodes["CropByBBoxes"].execute(image(1, 2), [BOXES], 64, 96, 4, aspect).args[0]
    yield "drawn", lambda: nodes["DrawBBoxes"].execute([BOXES], image(1, 2)).args[0]
    yield "boxes", lambda: nodes["CreateBoundingBoxes"].execute(96, 64, editor_state=DOCUMENTED, background=image(1)).args[0]
    yield "elements", lambda: json.dumps(nodes["CreateBoundingBoxes"].execute(96, 64, editor_state=DOCUMENTED).args[1:])
    for chosen in (
        {"format": "png", "bit_depth": "8-bit", "input_color_space": "sRGB"},
        {"format": "png", "bit_depth": "16-bit", "input_color_space": "sRGB"},
        *({"format": "exr", "bit_depth": "32-bit float", "input_color_space": space} for space in ("sRGB", "HDR", "linear")),
    ):
        name = f"saved {chosen['format']} {chosen['bit_depth']} {chosen['input_color_space']}"
        yield name, lambda chosen=chosen: saved(nodes["SaveImageAdvanced"], chosen)[0]
        yield f"{name}, metadata", lambda chosen=chosen: saved(nodes["SaveImageAdvanced"], chosen)[1]
    yield from dataset_cases(nodes)
    yield from layer_cases(nodes)


def dataset_cases(nodes):
    """Those of the nodes for datasets."""
    for name, settings in (
        ("ResizeImagesByShorterEdge", {"shorter_edge": 31}),
        ("ResizeImagesByLongerEdge", {"longer_edge": 90}),
        ("CenterCropImages", {"width": 33, "height": 20}),
        ("RandomCropImages", {"width": 33, "height": 20, "seed": 2**64 - 1}),
        ("NormalizeImages", {"mean": 0.4, "std": 0.3}),
        ("AdjustBrightness", {"factor": 1.4}),
        ("AdjustContrast", {"factor": 1.4}),
    ):
        yield name, lambda name=name, settings=settings: nodes[name].execute(image(5, 2), **settings).args[0]
    grid = {"columns": [2], "cell_width": [40], "cell_height": [32], "padding": [3]}
    yield "ImageGrid", lambda: nodes["ImageGrid"].execute([image(1, 2), image(2)], **grid).args[0]
    many = [image(seed) for seed in range(6)]
    yield "ShuffleDataset", lambda: torch.cat(nodes["ShuffleDataset"].execute(many, seed=[2**40 + 1]).args[0])
    alike = [many[0], (many[0] * 1.02).clamp(0, 1), many[1], many[0].flip(2)]
    yield "ImageDeduplication", lambda: torch.cat(nodes["ImageDeduplication"].execute(alike, similarity_threshold=[0.9]).args[0])


def layered(nodes, *modes):
    """A document of a picture and, over it, one layer for each of *modes*, turned, scaled, and masked in part."""
    document = nodes["AddLayer"].execute(image(1), name="ground").args[0]
    for number, mode in enumerate(modes):
        look = {"blend_mode": mode, "opacity": 0.8, "rotation": 30.0 * number, "x": 4 - 9 * number, "y": 5, "width": 50, "height": 40}
        document = nodes["AddLayer"].execute(image(6 + number), layers=document, mask=mask() * 0.7, flip_h=True, **look).args[0]
    return document


def composed(nodes, document, saved=None):
    """Picture and mask of *document*, as one tensor, and what the editor is told."""
    folder_paths.temp_directory = tempfile.gettempdir()
    node = type("Composing", (nodes["ImageCompositor"],), {"hidden": types.SimpleNamespace(prompt=None, extra_pnginfo=None)})
    answer = node.execute(document, saved)
    told = answer.ui if isinstance(answer.ui, dict) else answer.ui.as_dict()
    return torch.cat([answer.args[0], answer.args[1].unsqueeze(-1)], dim=-1), told


def layer_cases(nodes):
    """Those of the layer editor."""
    modes = nodes["AddLayer"].INPUT_TYPES()["optional"]["blend_mode"][1]["options"]
    for mode in modes:
        yield f"layer {mode}", lambda mode=mode: composed(nodes, layered(nodes, mode))[0]
    yield "layers", lambda: composed(nodes, layered(nodes, "multiply", "screen", "normal"))[0]

    def arranged():
        document = layered(nodes, "overlay", "hue")
        inputs = composed(nodes, document)[1]["compositor_inputs"]
        places = [{"x": 3.5, "y": -4, "w": 60, "h": 30, "rotation": 0.4}, {"x": 20, "y": 10, "w": 30, "h": 30, "rotation": 0}, {}]
        layers = [{"transform": place, "opacity": 0.7, "blend": "screen", "flipV": True} for place in places]
        saved = {"version": 1, "canvas": {"w": 70, "h": 60}, "layers": layers, "inputs": inputs, "order": [2, 0, 1]}
        saved["background"] = {"color": "#3a8", "opacity": 0.5, "visible": True}
        return composed(nodes, document, saved)

    yield "arranged", lambda: arranged()[0]
    yield "arranged, told", lambda: json.dumps({key: arranged()[1][key] for key in ("compositor_inputs", "compositor_bboxes")})

    def boxed():
        batch = torch.cat([image(1), image(2)])
        boxes = [
            {**BOXES[0], "metadata": {"name": "a", "content_rect": [3, 4, 20, 30]}},
            {**BOXES[1], "metadata": {"desc": "b", "z_index": 0}},
        ]
        return composed(
            nodes, nodes["LayersFromBoundingBoxes"].execute(batch, boxes, mask=mask(), canvas_width=64, canvas_height=64).args[0]
        )

    yield "boxed", lambda: boxed()[0]
    yield "boxed, told", lambda: json.dumps(boxed()[1]["compositor_bboxes"])


def main():
    """Run all cases."""
    results = {}
    for name, run in cases(node_classes()):
        try:
            results[name] = run()
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    torch.save(results, sys.argv[1])


if __name__ == "__main__":
    with torch.inference_mode():
        main()
