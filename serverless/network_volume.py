"""Looks at RunPod's network volume for operators whose models are not found (``NETWORK_VOLUME_DEBUG``)."""

import pathlib
from collections.abc import Iterator

VOLUME = pathlib.Path("/runpod-volume")
MODEL_FOLDERS = (
    "checkpoints",
    "clip",
    "clip_vision",
    "configs",
    "controlnet",
    "diffusion_models",
    "embeddings",
    "loras",
    "text_encoders",
    "unet",
    "upscale_models",
    "vae",
)
MODEL_SUFFIXES = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf"})


def diagnosis(volume: pathlib.Path = VOLUME) -> Iterator[str]:
    """Lines that say which model folders there are and what a server would see in them."""
    if not volume.is_dir():
        yield f"network volume: {volume} is not there; attach a volume to the endpoint"
        return
    models = volume / "models"
    if not models.is_dir():
        found = ", ".join(sorted(entry.name for entry in volume.iterdir())[:20]) or "nothing"
        yield f"network volume: {models} is not there, so no model is found; {volume} holds {found}"
        return
    yield f"network volume: {models}"
    for name in MODEL_FOLDERS:
        yield f"network volume:   {_folder_line(models / name)}"


def _folder_line(folder: pathlib.Path) -> str:
    if not folder.is_dir():
        return f"{folder.name}: not there"
    files = [path for path in folder.rglob("*") if path.is_file()]
    usable = [path for path in files if path.suffix.lower() in MODEL_SUFFIXES]
    ignored = len(files) - len(usable)
    shown = ", ".join(f"{path.relative_to(folder)} ({path.stat().st_size / 1e6:.1f} MB)" for path in sorted(usable)[:20])
    return f"{folder.name}: {len(usable)} models{f' ({shown})' if shown else ''}{f', {ignored} other files' if ignored else ''}"
