"""Workflows whose results are worth sharing, the checkpoint they load, and how to compare their pictures."""

import json
import os
import shutil
import struct

CHECKPOINT = "small.safetensors"


def place_checkpoint(base, checkpoint):
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, folder / CHECKPOINT)
    return folder / CHECKPOINT


def change_one_tensor(path):
    """Alter one number of the diffusion model, keeping name, size and modification time."""
    times = path.stat()
    with path.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        name = next(name for name in sorted(header) if name.startswith("model.diffusion_model.out.2.bias"))
        stream.seek(8 + length + header[name]["data_offsets"][0])
        stream.write(struct.pack("<f", 0.75))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def picture_workflow(seed=1):
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "yes": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red square", "clip": ["model", 1]}},
        "no": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["model", 1]}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["model", 0],
                "positive": ["yes", 0],
                "negative": ["no", 0],
                "latent_image": ["empty", 0],
                "seed": seed,
                "steps": 2,
                "cfg": 5.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["model", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "shared"}},
    }


def light_workflow(color=255):
    """Without a model."""
    return {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": color}},
        "inverted": {"class_type": "ImageInvert", "inputs": {"image": ["image", 0]}},
        "scaled": {
            "class_type": "ImageScale",
            "inputs": {"image": ["inverted", 0], "upscale_method": "bilinear", "width": 100, "height": 70, "crop": "disabled"},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["scaled", 0], "filename_prefix": "shared"}},
    }


def pixels(data):
    """A PNG's picture data, without the metadata."""
    chunks, position = b"", 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            chunks += data[position + 8 : position + 8 + length]
        position += 12 + length
    return chunks
