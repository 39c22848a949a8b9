"""Runs nodes of video models of the ``comfy_extras`` that Python finds over an autoencoder that only averages, and saves what they give.

    python video_model_node_runs.py RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. The results are {case: {name: tensor or number}}.
"""

import importlib
import json
import os
import sys
import tempfile

import torch
from safetensors.torch import save_file

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.clip_vision  # noqa: E402


class Averages:
    """Stands for an autoencoder: a cell holds the mean colours of its pixels, repeated, of one frame of four."""

    def __init__(self, channels=16, side=8):
        self.latent_channels, self.side = channels, side

    def spacial_compression_encode(self):
        """Pixels of a cell along one side."""
        return self.side

    def encode(self, frames):
        """F x H x W x 3 to 1 x channels x latent frames x rows x columns."""
        cells = torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1).float(), self.side)
        repeated = cells.repeat(1, self.latent_channels // 3 + 1, 1, 1)[:, : self.latent_channels]
        return repeated.movedim(1, 0)[None] * torch.linspace(0.5, 1.5, self.latent_channels).view(1, -1, 1, 1, 1)


def numbers(*shape, seed=1):
    """Seeded values in 0…1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def seen(seed):
    """What an image encoder saw."""
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = numbers(1, 5, 8, seed=seed)
    return output


SIZES = {"width": 64, "height": 48, "length": 9, "batch_size": 2}
VIDEO, LONG, PICTURE = numbers(5, 40, 56, 3), numbers(12, 48, 64, 3, seed=2), numbers(1, 64, 40, 3, seed=3)
MASKS = numbers(5, 40, 56, seed=4).round()
CASES = {
    "WanImageToVideo": ({}, {"start_image": PICTURE}, {"start_image": VIDEO, "clip_vision_output": seen(5)}, {"start_image": LONG}),
    "WanFirstLastFrameToVideo": (
        {},
        {"start_image": PICTURE},
        {"end_image": VIDEO[:2]},
        {"start_image": PICTURE, "end_image": PICTURE, "clip_vision_start_image": seen(6), "clip_vision_end_image": seen(7)},
    ),
    "WanFunInpaintToVideo": ({"start_image": PICTURE, "end_image": VIDEO[:1], "clip_vision_output": seen(8)},),
    "WanFunControlToVideo": ({}, {"control_video": VIDEO, "start_image": PICTURE}, {"control_video": LONG, "clip_vision_output": seen(9)}),
    "Wan22FunControlToVideo": ({}, {"control_video": VIDEO, "ref_image": PICTURE}, {"control_video": LONG, "start_image": PICTURE}),
    "WanVaceToVideo": (
        {"strength": 0.5},
        {"strength": 1.0, "control_video": VIDEO, "control_masks": MASKS},
        {"strength": 1.0, "control_video": LONG, "reference_image": PICTURE},
    ),
    "WanCameraImageToVideo": ({}, {"start_image": PICTURE, "camera_conditions": numbers(1, 24, 3, 48, 64), "clip_vision_output": seen(3)}),
    "WanPhantomSubjectToVideo": ({"images": numbers(3, 48, 48, 3, seed=9)},),
    "Wan22ImageToVideoLatent": ({}, {"start_image": PICTURE}, {"start_image": VIDEO}),
    "BerniniConditioning": (
        {},
        {"source_video": VIDEO, "reference_video": LONG, "ref_max_size": 32},
        {"reference_images": {"reference_image_0": PICTURE, "reference_image_1": VIDEO[:2]}},
    ),
}
WAYS = [[{"x": 10 + 2 * step, "y": 20 - step} for step in range(121)], [{"x": 50 - step, "y": 8} for step in range(20)]]
FEW = {"temperature": 220.0, "topk": 1, "tracks": json.dumps(WAYS[0]), "start_image": PICTURE}
CASES["WanTrackToVideo"] = (
    {"temperature": 220.0, "topk": 2, "tracks": json.dumps(WAYS), "start_image": PICTURE, "clip_vision_output": seen(4)},
    {"temperature": 20.0, "topk": 5, "tracks": json.dumps([WAYS, WAYS[::-1]]), "start_image": VIDEO},
    FEW,
    {"temperature": 220.0, "topk": 2, "tracks": "[]", "start_image": PICTURE},
)
CASES["WanAnimate2ToVideo"] = (
    {"video_frame_offset": 1, "reference_image": PICTURE, "pose_video": VIDEO, "clip_vision_output": seen(4)},
    {"video_frame_offset": 9, "pose_video": LONG, "continue_motion": VIDEO, "pose_start_percent": 0.2, "reference_image_strength": 0.5},
)
ANIMATE = {"continue_motion_max_frames": 5, "video_frame_offset": 0}
CASES["WanAnimateToVideo"] = (
    ANIMATE,
    {**ANIMATE, "reference_image": PICTURE, "pose_video": VIDEO, "clip_vision_output": seen(4)},
    {**ANIMATE, "reference_image": VIDEO, "pose_video": LONG, "face_video": VIDEO, "video_frame_offset": 2},
    {**ANIMATE, "reference_image": PICTURE, "background_video": LONG, "character_mask": MASKS, "face_video": LONG},
    {**ANIMATE, "background_video": VIDEO, "character_mask": MASKS[:1], "video_frame_offset": 3},
    {**ANIMATE, "background_video": VIDEO, "character_mask": MASKS, "pose_video": VIDEO, "face_video": VIDEO, "video_frame_offset": 5},
    {
        "reference_image": PICTURE,
        "pose_video": LONG,
        "face_video": LONG,
        "background_video": LONG,
        "character_mask": MASKS[:1],
        "continue_motion": VIDEO,
        "continue_motion_max_frames": 5,
        "video_frame_offset": 9,
    },
    {
        "reference_image": PICTURE,
        "pose_video": LONG,
        "background_video": VIDEO,
        "character_mask": MASKS,
        "continue_motion": LONG,
        "continue_motion_max_frames": 13,
        "video_frame_offset": 12,
        "length": 5,
    },
    {**ANIMATE, "continue_motion": VIDEO[:1], "continue_motion_max_frames": 1, "video_frame_offset": 10, "pose_video": LONG},
)
FIGURES = numbers(3, 48, 64, 3, seed=12).round() * torch.linspace(0.7, 1.0, 48).view(48, 1, 1)
SCAIL = {"pose_strength": 0.7, "pose_start": 0.0, "pose_end": 1.0, "video_frame_offset": 0, "previous_frame_count": 5}
CASES["WanSCAILToVideo"] = (
    {**SCAIL, "reference_image": PICTURE, "pose_video": VIDEO, "clip_vision_output": seen(4)},
    {**SCAIL, "reference_image": VIDEO[:2], "reference_image_mask": FIGURES, "pose_video": LONG, "pose_end": 0.5, "batch_size": 1},
    {**SCAIL, "reference_image": LONG[:3], "reference_image_mask": FIGURES[:1], "replacement_mode": True, "batch_size": 1},
    {**SCAIL, "video_frame_offset": 7, "previous_frames": VIDEO, "pose_video": LONG, "pose_video_mask": FIGURES.repeat(4, 1, 1, 1)},
    {**SCAIL, "video_frame_offset": 12, "previous_frames": VIDEO[:1], "pose_video": LONG[:9], "pose_video_mask": FIGURES},
)
COSMOS = ({}, {"start_image": PICTURE}, {"start_image": VIDEO, "end_image": PICTURE, "length": 25}, {"end_image": LONG[:1]})
CASES |= dict.fromkeys(("CosmosImageToVideoLatent", "CosmosPredict2ImageToVideoLatent"), COSMOS)
PATHS = torch.tensor([[[4.0 + 5 * frame, 4.0], [60.0, 44.0 - 5 * frame], [8.0 * frame - 9, 20.0 + 2 * frame]] for frame in range(12)])
TRACKS = {"track_path": PATHS, "track_visibility": torch.ones(12, 3, dtype=torch.bool)}
CASES["WanMoveTrackToVideo"] = (
    {"strength": 1.0, "start_image": PICTURE, "tracks": TRACKS, "batch_size": 1, "clip_vision_output": seen(4)},
    {"strength": 0.4, "start_image": VIDEO, "tracks": TRACKS, "batch_size": 1},
    {"strength": 1.0, "start_image": VIDEO},
)
MOVE = {"start_x": 0.1, "start_y": 0.2, "mid_x": 0.9, "mid_y": 0.1, "end_x": 0.7, "end_y": 0.8, "num_frames": 9, "num_tracks": 3}
MOVE |= {"width": 64, "height": 48, "track_spread": 0.1}
MOVED = {
    "GenerateTracks": (
        *({**MOVE, "interpolation": pace} for pace in ("linear", "ease_in", "ease_out", "ease_in_out", "constant")),
        {**MOVE, "bezier": True},
        {**MOVE, "num_tracks": 1, "track_mask": numbers(9, 4, 4).round() * (torch.arange(9) % 2)[:, None, None]},
    ),
    "WanMoveTracksFromCoords": ({"track_coords": json.dumps([[{"x": 10 + 2 * step, "y": 20 - step} for step in range(9)]] * 2)},),
    "WanMoveConcatTrack": ({"tracks_1": TRACKS}, {"tracks_1": TRACKS, "tracks_2": TRACKS}),
    "WanMoveVisualizeTracks": (
        {"images": LONG, "line_resolution": 24, "circle_size": 12, "opacity": 0.75, "line_width": 16, "tracks": TRACKS},
        {"images": PICTURE, "line_resolution": 3, "circle_size": 2, "opacity": 0.5, "line_width": 3, "tracks": TRACKS},
    ),
}
CASES |= MOVED
HUNYUAN = {
    "HunyuanVideo15ImageToVideo": ({}, {"start_image": PICTURE, "clip_vision_output": seen(2)}, {"start_image": VIDEO}),
    "HunyuanVideo15SuperResolution": (
        {"noise_augmentation": 0.5},
        {"noise_augmentation": 0.7, "start_image": PICTURE, "clip_vision_output": seen(2)},
    ),
}
CASES |= HUNYUAN
MODULES = (
    dict.fromkeys((*MOVED, "WanMoveTrackToVideo"), "wanmove")
    | dict.fromkeys(HUNYUAN, "hunyuan")
    | dict.fromkeys(("CosmosImageToVideoLatent", "CosmosPredict2ImageToVideoLatent"), "cosmos")
    | {"BerniniConditioning": "bernini", "WanSCAILToVideo": "scail"}
)
CAMERA = (
    ("Static", {}),
    ("Pan Left", {"speed": 2.0}),
    ("Zoom In", {"fx": 0.7, "cy": 0.4}),
    ("ClockWise (CW)", {"width": 48, "height": 80}),
    ("Anti Clockwise (ACW)", {"speed": 0.5}),
)


def flat(values, name=""):
    """Tensors and numbers anywhere in *values*, by their path."""
    if isinstance(values, dict):
        return {path: one for key, value in values.items() for path, one in flat(value, f"{name}.{key}").items()}
    if isinstance(values, list | tuple):
        return {path: one for number, value in enumerate(values) for path, one in flat(value, f"{name}.{number}").items()}
    if hasattr(values, "penultimate_hidden_states"):
        values = values.penultimate_hidden_states
    return {name: torch.as_tensor(values)}


def run(name, options, sizes=SIZES):
    """What the node gives; latents without the notes that only this project makes of them."""
    module = importlib.import_module(f"comfy_extras.nodes_{MODULES.get(name, 'wan')}")
    wide = name == "Wan22ImageToVideoLatent"
    arguments = {"vae": Averages(48, 16) if wide else Averages(), **sizes, **options}
    if name in HUNYUAN:
        arguments["vae"] = Averages(32, 16)
    if name == "HunyuanVideo15SuperResolution":
        arguments = {"vae": arguments["vae"], "latent": {"samples": numbers(1, 32, 3, 3, 4)}, **options}
    if name in MOVED:
        arguments = options
    elif not wide and not name.startswith("Cosmos"):
        arguments |= {side: [[numbers(1, 4, 8, seed=seed), {}]] for side, seed in (("positive", 10), ("negative", 11))}
    return flat(getattr(module, name).execute(**arguments).args)


def upscaled():
    """Latents enlarged and made sharper by small models of both kinds."""
    import folder_paths

    nodes = importlib.import_module("comfy_extras.nodes_hunyuan")
    folder = tempfile.mkdtemp()
    folder_paths.add_model_folder_path("latent_upscale_models", folder)
    found = {}
    for kind, shapes in UPSCALERS.items():
        tensors = {name: numbers(*shape, seed=seed) * shape[0] ** -0.5 for seed, (name, shape) in enumerate(shapes().items())}
        save_file(tensors, os.path.join(folder, f"{kind}.safetensors"))
        model = nodes.LatentUpscaleModelLoader.execute(f"{kind}.safetensors").args[0]
        for sizes in ((128, 96), (0, 160)):
            latent = {"samples": numbers(1, 4, 3, 4, 6, seed=3)}
            made = nodes.HunyuanVideo15LatentUpscaleWithModel.execute(model, latent, "bilinear", *sizes, "disabled").args
            found[f"upscaled {kind} {sizes}"] = flat(made)
    return found


def conv(name, inner, outer, size=3):
    """The shapes of a convolution."""
    return {f"{name}.weight": (outer, inner, size, size, size), f"{name}.bias": (outer,)}


def small_720p():
    """{published name: shape} of the network for 720p."""
    shapes = conv("in_conv.conv", 4, 8) | conv("out_conv.conv", 8, 4)
    for block in range(2):
        for layer in (0, 2, 4):
            shapes |= conv(f"blocks.{block}.block.{layer}.conv", 8, 8)
    return shapes


def small_1080p():
    """The same of that for 1080p."""
    shapes = conv("conv_in.conv", 4, 8) | conv("conv_out.conv", 12, 4) | {"norm_out.gamma": (12, 1, 1, 1)}
    inner = 8
    for stage, width in enumerate((8, 12)):
        for block in range(3):
            name = f"up.{stage}.block.{block}"
            shapes |= {f"{name}.norm1.gamma": (inner, 1, 1, 1), f"{name}.norm2.gamma": (width, 1, 1, 1)}
            shapes |= conv(f"{name}.conv1.conv", inner, width) | conv(f"{name}.conv2.conv", width, width)
            shapes |= conv(f"{name}.nin_shortcut", inner, width, 1) if inner != width else {}
            inner = width
    return shapes


UPSCALERS = {"720p": small_720p, "1080p": small_1080p}


def main(results_file):
    """Run all and save."""
    found = {f"{name} {number}": run(name, options) for name, cases in CASES.items() for number, options in enumerate(cases)}
    wide = {"vae": Averages(48, 16), "control_video": VIDEO, "ref_image": PICTURE}
    found["Wan22FunControlToVideo, 5B"] = run("Wan22FunControlToVideo", wide)
    found["WanFunInpaintToVideo, 5B"] = run("WanFunInpaintToVideo", {"vae": Averages(48, 16), "start_image": PICTURE})
    camera = importlib.import_module("comfy_extras.nodes_camera_trajectory").WanCameraEmbedding
    sizes = {name: SIZES[name] for name in ("width", "height", "length")}
    for pose, options in CAMERA:
        found[f"camera {pose}"] = flat(camera.execute(camera_pose=pose, **{**sizes, **options}).args)
    found |= upscaled()
    torch.save(found, results_file)


if __name__ == "__main__":
    with torch.inference_mode():
        main(sys.argv[1])
