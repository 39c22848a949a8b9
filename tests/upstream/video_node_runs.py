"""Runs the nodes for videos of the ``comfy_extras`` that Python finds, and saves what they write and read.

    python video_node_runs.py save FOLDER
    python video_node_runs.py read FOLDER RESULTS_FILE

The first saves videos in FOLDER, the second decodes those in it, in all its folders. It uses only what ComfyUI has. The file holds, by
case, the decoded frames, sound and header, or that the node refused. The number of frames that a header tells is left out: ComfyUI's count
fails on parts and on Matroska files.
"""

import asyncio
import json
import pathlib
import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import folder_paths  # noqa: E402
from comfy_extras import nodes_video  # noqa: E402


def node_classes():
    extension = nodes_video.comfy_entrypoint()
    extension = asyncio.run(extension) if asyncio.iscoroutine(extension) else extension
    return {one.GET_SCHEMA().node_id: one for one in asyncio.run(extension.get_node_list())}


NODES = node_classes()
RATE_HZ = 22050
SAVED = {
    "mp4": {"format": "mp4", "codec": {"codec": "auto"}},
    "mp4 fine": {"format": "mp4", "codec": {"codec": "h264", "encoding": {"encoding": "re-encode", "crf": 10.0, "color_space": "auto"}}},
    "mp4 hdr": {"format": "mp4", "codec": {"codec": "h264", "encoding": {"encoding": "re-encode", "crf": 10.0, "color_space": "HDR"}}},
    "mkv av1": {"format": "mkv", "codec": {"codec": "av1", "encoding": {"encoding": "re-encode", "crf": 20.0, "color_space": "auto"}}},
    "webm": {"format": "webm", "codec": {"codec": "auto"}},
}


def images(channels=3, frames=10, height=48, width=80):
    numbers = torch.Generator().manual_seed(1)
    coarse = torch.rand(frames, channels, 6, 8, generator=numbers)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").movedim(1, -1).clamp(0, 1)


def run(name, *values, **settings):
    node = NODES[name]
    if node.SCHEMA is None:
        node.GET_SCHEMA()
    prepared = node.PREPARE_CLASS_CLONE({"hidden_inputs": {}}) if hasattr(node, "PREPARE_CLASS_CLONE") else node
    return prepared.execute(*values, **settings).args


def taken_apart(video):
    """What Get Video Components gives of *video*, and what it says of itself."""
    frames, audio, fps, bits, space = run("GetVideoComponents", video)
    facts = [fps, bits, space, round(video.get_duration(), 3), list(video.get_dimensions())]
    found = {"images": frames, "facts": json.dumps(facts)}
    return found | ({"audio": audio["waveform"], "rate": str(audio["sample_rate"])} if audio else {})


def attempted(video, *cut):
    """What there is in *video*, or in the part that *cut* names; ``error`` where that is refused."""
    try:
        return taken_apart(run("Video Slice", video, *cut)[0] if cut else video)
    except ValueError:
        return {"error": "refused"}


def save(folder):
    folder_paths.set_output_directory(folder)
    sound = {"waveform": 0.3 * torch.sin(torch.arange(2 * RATE_HZ) / 9.0).repeat(1, 2, 1), "sample_rate": RATE_HZ}
    for case, settings in SAVED.items():
        (video,) = run("CreateVideo", images(), 12.5, sound, bit_depth=8)
        run("SaveVideo", video, case.replace(" ", "-"), settings)
    for codec in ("vp9", "av1"):
        for channels in (3, 4):
            run("SaveWEBM", images(channels), codec, 24.0, f"web-{codec}-{channels}", 32.0)


def read(folder, results_file):
    folder_paths.set_input_directory(folder)
    results = {}
    for path in sorted(pathlib.Path(folder).rglob("*_.*")):
        name = path.relative_to(folder).as_posix()
        (video,) = run("LoadVideo", name)
        for cut in ((), (0.24, 0.4, False), (-0.3, 0.0, False), (0.5, 5.0, False), (0.5, 5.0, True)):
            results |= {f"{name} {cut} {key}": value for key, value in attempted(video, *cut).items()}
    torch.save(results, results_file)


{"save": save, "read": read}[sys.argv[1]](*sys.argv[2:])
