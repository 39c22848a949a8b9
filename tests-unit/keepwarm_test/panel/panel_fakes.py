"""A server's models as the panel reads them, without a server."""

import sys
from types import SimpleNamespace

from custom_nodes.keepwarm.panel.model_files import ModelFiles
from custom_nodes.keepwarm.preload.config import Wanted
from custom_nodes.keepwarm.preload.keepers import OwnKeeper
from custom_nodes.keepwarm.preload.loader_calls import LoaderCall
from custom_nodes.keepwarm.preload.preloader import Plan, Preloader

CPU, GPU = SimpleNamespace(type="cpu", index=None), SimpleNamespace(type="cuda", index=0)


def indexed(root, **sizes):
    """An index of the files ``folder__name`` of the given sizes."""
    names = {}
    for place, size in sizes.items():
        folder, name = place.split("__")
        names.setdefault(folder, []).append(f"{name}.safetensors")
        (root / f"{name}.safetensors").write_bytes(bytes(size))
    folders = SimpleNamespace(
        folder_names_and_paths=names, get_filename_list=names.get, get_full_path=lambda folder, name: str(root / name)
    )
    files = ModelFiles(folders)
    files.refresh(0)
    return files


def with_torch(monkeypatch):
    """As if something had imported torch, without which no model is loaded."""
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", object()))


class UNet:
    """A module."""


class Loaded:
    """A ``LoadedModel`` of 100 bytes, of which *on_device* are where it computes."""

    def __init__(self, device=GPU, on_device=100, path=None, used=True):
        noted = (len, (path, [path], None)) if path else None
        self.model = SimpleNamespace(model=UNet(), model_size=lambda: 100, cached_patcher_init=noted)
        self.device, self.currently_used, self.on_device = device, used, on_device

    def model_loaded_memory(self):
        return self.on_device


class Loader:
    """Stands in for the server's VAE loader."""

    FUNCTION = "load"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"vae_name": (["v.safetensors", "broken.safetensors"],)}})

    def load(self, vae_name):
        if vae_name.startswith("broken"):
            raise ValueError("damaged")
        return (vae_name,)


def preloader_of(*names, root=None):
    """A preloader that keeps VAEs itself, as in an unpatched ComfyUI, and holds *names*."""
    preloader = Preloader(Plan((), ()), OwnKeeper({}))
    preloader.keeper._originals["VAELoader"] = Loader.load
    for name in names:
        wanted = Wanted("vaes", "models.vaes[0]", (name,), {}, name)
        files = () if root is None else (str(root / name),)
        preloader.load(preloader.add(wanted, LoaderCall("VAELoader", Loader, {"vae_name": name}, files)))
    return preloader
