"""Keepwarm: shares node results, preloads models, and shows what lies where. Works in Keepwarm's core and in ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import instantid_memo
from .activation import activate
from .panel.startup import install as install_panel
from .preload.nodes import node_classes
from .preload.startup import Preloading, install

WEB_DIRECTORY = "./web"


class KeepwarmExtension(ComfyExtension):
    """Registers the cache providers and preloads the models that flags and environment name."""

    def __init__(self) -> None:
        self._preloading = Preloading()

    async def on_load(self) -> None:
        """Called once by the server, while it loads packs."""
        providers = await activate()
        install(self._preloading, providers)
        install_panel(self._preloading, providers)
        instantid_memo.install()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The pack's nodes."""
        return node_classes(self._preloading)


async def comfy_entrypoint() -> ComfyExtension:
    """What the server calls."""
    return KeepwarmExtension()
