"""Keepwarm: shares node results through a folder, Redis or object storage, and preloads models. Works in Keepwarm's core and in ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import instantid_memo
from .activation import activate
from .preload.nodes import node_classes
from .preload.startup import Preloading, install


class KeepwarmExtension(ComfyExtension):
    """Registers the cache providers and preloads the models that flags and environment name."""

    def __init__(self) -> None:
        self._preloading = Preloading()

    async def on_load(self) -> None:
        """Called once by the server, while it loads packs."""
        await activate()
        install(self._preloading)
        instantid_memo.install()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The pack's nodes."""
        return node_classes(self._preloading)


async def comfy_entrypoint() -> ComfyExtension:
    """What the server calls."""
    return KeepwarmExtension()
