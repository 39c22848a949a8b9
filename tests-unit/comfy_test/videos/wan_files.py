"""Small networks of Wan's kinds with random weights in the published names."""

import json
import math

import torch
from safetensors.torch import save_file
from transformer_files import config_of, random_tensors

WIDTH = 128  # one head
ANIMATE2 = {"config": json.dumps({"transformer": {"model_type": "animate2"}})}  # in the metadata of such a file
CAUSAL = {"config": json.dumps({"transformer": {"causal_ar": True}})}
IN_CHANNELS = {"i2v": 36, "animate2": 36, "control": 48, "camera": 32, "camera_2.2": 36, "5b": 48, "animate": 36, "scail": 20, "scail2": 20}
VISION = 1280
FACE_WIDTHS = (32, 64, 128, 256, 512, 512, 512, 512)  # channels of a face's picture, of all files that upstream knows
NARROW_FACES = (8, 8, 12, 16, 16, 16, 16, 16)  # of small files; as many of them as a picture's sides halve down to 4, and one


def wan_config(
    kind: str = "t2v", *, width: int = WIDTH, depth: int = 2, inner: int = 192, context: int = 64, channels: int | None = None, **extra: int
) -> dict:
    """The ``unet_config`` of a small network: "t2v", "i2v", "flf" (first and last frame), "control", "vace", "camera",
    "camera_2.2", "5b", "animate2", "animate", "scail", "scail2".

    *channels* of its input, where they are not the kind's usual ones. *extra*: ``reference`` (channels of a picture before the video),
    ``vace_depth``; of "animate" ``faces``, the sides of their pictures (where that is left out, all about them has the published sizes),
    and ``narrow_faces`` (the published sizes but for the channels of the pictures).
    "s2v" and "humo" hear: ``heard`` values at a time (of "humo", of all its layers and times), ``sound`` per token.
    """
    looks = kind in ("i2v", "animate2", "animate", "flf", "control", "camera", "scail", "scail2")
    latent = 48 if kind == "5b" else 16
    first = channels or IN_CHANNELS.get("i2v" if kind == "flf" else kind, latent)
    shapes = {
        "head.modulation": (1, 2, width),
        "head.head.weight": (latent * 4, width),
        "blocks.0.ffn.0.weight": (inner, width),
        "time_embedding.0.weight": (width, 256),
        "text_embedding.0.weight": (width, context),
        "patch_embedding.weight": (width, first, 1, 2, 2),
        **{f"blocks.{number}.": () for number in range(depth)},
        **({"img_emb.proj.0.bias": (VISION,)} if looks else {}),
        **({"img_emb.emb_pos": (1, 514, VISION)} if kind == "flf" else {}),
        **({"control_adapter.conv.weight": (width, 1536, 2, 2)} if kind.startswith("camera") else {}),
        **({"ref_conv.weight": (width, extra["reference"], 2, 2)} if "reference" in extra else {}),
    }
    if kind == "s2v":
        shapes |= {f"audio_injector.injector.{number}.": () for number in range(12)} | {"cond_encoder.weight": (width, 16, 1, 2, 2)}
        shapes |= {
            "casual_audio_encoder.weights": (1, extra.get("layers", 3), 1, 1),
            "casual_audio_encoder.encoder.final_linear.weight": (),
        }
        shapes["casual_audio_encoder.encoder.conv1_local.conv.weight"] = (width, extra.get("heard", 8), 3)
    if kind == "humo":
        shapes |= {
            "audio_proj.audio_proj_glob_1.layer.bias": (),
            "audio_proj.audio_proj_glob_1.layer.weight": (512, extra.get("heard", 80)),
        }
        shapes["audio_proj.audio_proj_glob_norm.layer.weight"] = (extra.get("sound", 24),)
    if kind == "animate":
        shapes |= _face_shapes(width, extra.get("faces"), bool(extra.get("narrow_faces")))
    if kind.startswith("scail"):
        shapes["patch_embedding_pose.weight"] = (width, first, 1, 2, 2)
    if kind == "scail2":
        shapes["patch_embedding_mask.weight"] = (width, 28, 1, 2, 2)
    if kind == "vace":
        shapes["vace_patch_embedding.weight"] = (width, 96, 1, 2, 2)
        shapes |= {f"vace_blocks.{number}.": () for number in range(extra.get("vace_depth", 1))}
    return {**config_of(shapes), **({"model_type": "animate2"} if kind == "animate2" else {})}


def _face_shapes(width: int, side: int | None, narrow: bool) -> dict[str, tuple[int, ...]]:
    """What tells the sizes of the parts of "animate" that look at faces."""
    widths, style, values, directions, inner = NARROW_FACES if narrow else FACE_WIDTHS, 512, 512, 20, 1024
    if side is not None:
        widths, style, values, directions, inner = NARROW_FACES[: side.bit_length() - 2], 16, 24, 5, 20
    convs = "motion_encoder.enc.net_app.convs."
    return {
        "face_adapter.fuser_blocks.0.k_norm.weight": (width,),
        "face_encoder.out_proj.weight": (width, inner),
        "face_encoder.conv1_local.conv.weight": (4 * inner, values, 3),
        "motion_encoder.dec.direction.weight": (values, directions),
        f"{convs}0.0.weight": (widths[0], 3, 1, 1),
        **{f"{convs}{number}.conv2.1.weight": (size, 1, 3, 3) for number, size in enumerate(widths[1:], 1)},
        f"{convs}{len(widths)}.weight": (style, widths[-1], 4, 4),
    }


def blur_kernels(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The fixed numbers that the published file of "animate" holds beside each convolution of *tensors* that halves a picture."""
    kernel = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
    places = [name.removesuffix("1.weight") for name in tensors if name.endswith((".conv2.1.weight", ".skip.1.weight"))]
    return {f"{place}0.kernel": kernel.clone() for place in places}


def wan_tensors(kind: str = "t2v", seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> dict[str, torch.Tensor]:
    """A small network in the published names."""
    tensors = random_tensors(wan_config(kind, **sizes), seed, dtype)
    for name, value in tensors.items():
        if name.startswith("motion_encoder.enc.") and value.ndim > 1 and name.endswith("weight"):
            value *= math.prod(value.shape[1:]) ** 0.5  # the network divides by it
    return tensors


def wan_file(path, kind: str = "t2v", seed: int = 0, dtype: torch.dtype = torch.float32, prefix: str = "", **sizes: int) -> str:
    """*path*, after such a network was written there."""
    tensors = wan_tensors(kind, seed, dtype, **sizes)
    save_file(
        {prefix + name: value for name, value in (tensors | blur_kernels(tensors)).items()},
        path,
        {"animate2": ANIMATE2, "causal": CAUSAL}.get(kind),
    )
    return str(path)


def talk_file(path, width: int, heard: int, out: int = 24, between: int = 32, blocks: int = 40, seed: int = 0) -> str:
    """*path*, after a small model patch of InfiniteTalk was written there, for *heard* values at a time."""
    chance = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "audio_proj.proj1": (between, 5 * heard),
        "audio_proj.proj1_vf": (between, 8 * heard),
        "audio_proj.proj2": (between, between),
        "audio_proj.proj3": (32 * out, between),
        "audio_proj.norm": (out,),
    }
    for number in range(blocks):
        layers = {"q_linear": (width, width), "kv_linear": (2 * width, out), "proj": (width, width)}
        shapes |= {f"blocks.{number}.audio_cross_attn.{name}": shape for name, shape in layers.items()}
        shapes[f"blocks.{number}.norm_x"] = (width,)
    tensors = {f"{name}.weight": torch.randn(shape, generator=chance) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.randn(shape[0], generator=chance) * 0.1 for name, shape in shapes.items()}
    for name in tensors:
        if "norm" in name and name.endswith(".weight"):
            tensors[name] += 1.0
    save_file(tensors, path)
    return str(path)
