"""Quantised weights as files hold them, made from the formats' definitions, with the values that they mean; nothing of comfy-kitchen."""

import json

import torch

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
ROTATION = 16
KINDS = ("fp8", "fp8 rows", "fp8 e5m2", "mxfp8", "nvfp4", "int8", "int8 rows", "int8 convrot", "w4a8")
OTHER_CODES = ("w4a8 even", "w4a8 shifted", "w6a8")  # without a codebook, with values added to groups, of six bits
CODED = ("w4a8", *OTHER_CODES)
GROUP = 16
CODEBOOK = torch.linspace(-1, 1, 16) ** 3 * 0.4 + torch.linspace(-1, 1, 16) * 0.6  # denser around zero
NAMES = {"fp8 e5m2": "float8_e5m2", "mxfp8": "mxfp8", "nvfp4": "nvfp4"}


def text(settings):
    """*settings* as the tensor that files hold them in."""
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def settings_for(kind):
    """What a file says about a layer of *kind*."""
    if kind in CODED:
        return {"format": "asym_w4a8_int8", "group_size": GROUP, "convrot": True, "convrot_groupsize": ROTATION}
    settings = {"format": NAMES.get(kind) or ("int8_tensorwise" if kind.startswith("int8") else "float8_e4m3fn")}
    return settings | ({"convrot": True, "convrot_groupsize": ROTATION} if kind == "int8 convrot" else {})


def quantised(kind, weight):
    """({suffix: tensor}, values): the matrix *weight* stored as *kind*, and what that means."""
    if kind in CODED:
        return coded(kind, weight)
    if kind.startswith("fp8"):
        dtype = torch.float8_e5m2 if "e5m2" in kind else torch.float8_e4m3fn
        scale = largest(weight, kind) / torch.finfo(dtype).max
        stored = (weight / scale).to(dtype)
        return {"weight": stored, "weight_scale": scale}, stored.float() * scale
    if kind.startswith("int8"):
        rotated = rotate(weight) if "convrot" in kind else weight
        scale = largest(rotated, kind) / 127
        stored = (rotated / scale).round().to(torch.int8)
        values = stored.float() * scale
        return {"weight": stored, "weight_scale": scale}, rotate(values) if "convrot" in kind else values
    padding = 32 if kind == "mxfp8" else 16
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % padding, 0, -rows % padding))
    tensors, values = (mxfp8 if kind == "mxfp8" else nvfp4)(padded)
    return tensors, values[:rows, :columns]


def coded(kind, weight):
    """Rotated; codes for numbers of a codebook, or for whole ones around zero. A group's fp8 scale makes int8 numbers of them, a row's
    scale values. Of two codes the first lies in the lower half of a byte; the upper two bits of codes of six follow all halves, four to a
    byte."""
    groups = rotate(weight).unflatten(1, (-1, GROUP))
    shift = torch.zeros_like(groups[..., :1])
    if "shifted" in kind:
        shift = groups.mean(-1, keepdim=True)
    levels = torch.arange(-31, 32) if kind == "w6a8" else CODEBOOK if kind == "w4a8" else torch.arange(-8, 8)
    numbers = groups - shift
    each = numbers.abs().amax(-1, keepdim=True) / levels.abs().float()[1:].max()
    codes = torch.cat([(part[..., None] - levels).abs().argmin(-1) for part in (numbers / each).split(8)])
    row = (each * levels.abs().max()).amax(1, keepdim=True) / 127
    scales = (each / row).to(torch.float8_e4m3fn)
    whole = (levels[codes] * scales.float()).round().clamp(-127, 127)
    values = rotate((whole * row + shift).flatten(1))
    tensors = {"weight_s_rel": scales.squeeze(-1), "weight_s_channel": row.flatten()}
    tensors |= {"weight_codebook": CODEBOOK.clone()} if kind == "w4a8" else {}
    tensors |= {"weight_correction": shift.squeeze(-1).T.contiguous()} if "shifted" in kind else {}
    stored = (codes + (1 if kind == "w6a8" else 0)).flatten(1)
    halves = (stored[:, 0::2] & 15) | (stored[:, 1::2] & 15) << 4
    if kind == "w6a8":
        upper = stored >> 4
        halves = torch.cat((halves, upper[:, 0::4] | upper[:, 1::4] << 2 | upper[:, 2::4] << 4 | upper[:, 3::4] << 6), dim=1)
    return {"weight": halves.to(torch.uint8).view(torch.int8), **tensors}, values


def largest(weight, kind):
    """The largest number of *weight*, or of each row."""
    return weight.abs().amax(1, keepdim=True) if "rows" in kind or "convrot" in kind else weight.abs().max()


def rotate(weight):
    """*weight* with each group of a row's numbers multiplied by a normalised regular Hadamard matrix, which is its own inverse."""
    four = torch.ones(4, 4) - 2 * torch.eye(4).flip(1)
    matrix = torch.kron(four, four) / ROTATION**0.5
    return (weight.reshape(len(weight), -1, ROTATION) @ matrix.T).reshape(weight.shape)


def mxfp8(weight):
    """Blocks of 32 with a power of two each (OCP Microscaling Formats 1.0)."""
    blocks = weight.reshape(len(weight), -1, 32)
    exponent = torch.ceil(torch.log2((blocks.abs().amax(-1) / 448).clamp(min=2.0**-127)))
    stored = (blocks / 2.0 ** exponent[..., None]).to(torch.float8_e4m3fn)
    values = (stored.float() * 2.0 ** exponent[..., None]).reshape(weight.shape)
    return {"weight": stored.reshape(weight.shape), "weight_scale": tiled((exponent + 127).to(torch.uint8))}, values


def nvfp4(weight):
    """Blocks of 16 with an fp8 scale each, and a scale for all; the first of two numbers lies in the upper half of a byte."""
    whole = weight.abs().max() / (448 * 6)
    blocks = weight.reshape(len(weight), -1, 16)
    scales = (blocks.abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn)
    each = (scales.float() * whole)[..., None]
    codes = ((blocks / each).abs()[..., None] - E2M1).abs().argmin(-1)
    values = (E2M1[codes] * blocks.sign() * each).reshape(weight.shape)
    codes = (codes + 8 * (blocks < 0)).reshape(weight.shape).to(torch.uint8)
    stored = codes[:, 0::2] << 4 | codes[:, 1::2]
    return {"weight": stored, "weight_scale": tiled(scales.view(torch.uint8)), "weight_scale_2": whole}, values


def tiled(scales):
    """*scales* (rows x blocks) in tiles of 128 rows and 4 blocks, as NVIDIA's matrix products take them, padded with zeros."""
    rows, blocks = scales.shape
    across = -(-blocks // 4)
    flat = torch.zeros(-(-rows // 128) * across * 512, dtype=scales.dtype)
    row, block = torch.meshgrid(torch.arange(rows), torch.arange(blocks), indexing="ij")
    place = (row // 128 * across + block // 4) * 512 + row % 32 * 16 + row % 128 // 32 * 4 + block % 4
    flat[place] = scales
    return flat.reshape(-(-rows // 128) * 128, across * 4)


def quantised_model(kind, tensors, prefix="model.diffusion_model.", in_metadata=False):
    """(*tensors* with the matrices below *prefix* stored as *kind*, the same multiplied out, the file's metadata)."""
    stored, plain, layers = {}, {}, {}
    for key, value in tensors.items():
        stored[key] = plain[key] = value
        if key.startswith(prefix) and key.endswith(".weight") and value.ndim == 2 and fits(kind, value):
            layer = key.removesuffix(".weight")
            found, plain[key] = quantised(kind, value)
            stored |= {f"{layer}.{suffix}": tensor for suffix, tensor in found.items()}
            layers[layer] = settings_for(kind)
    if in_metadata:
        return stored, plain, {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    return stored | {f"{layer}.comfy_quant": text(settings) for layer, settings in layers.items()}, plain, {}


def fits(kind, weight):
    """Whether *weight* can be rotated in groups, where that is asked for."""
    return (kind != "int8 convrot" and kind not in CODED) or weight.shape[1] % ROTATION == 0
