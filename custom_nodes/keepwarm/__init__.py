"""Keepwarm: shares node results through a folder, Redis or object storage. Works in Keepwarm's core and in ComfyUI."""

from comfy_api.latest import ComfyExtension

from .activation import activate


class KeepwarmExtension(ComfyExtension):
    """Registers the cache providers that flags and environment name."""

    async def on_load(self) -> None:
        """Called once by the server, while it loads packs."""
        await activate()

    async def get_node_list(self) -> list[type]:
        """The pack's nodes."""
        return []


async def comfy_entrypoint() -> ComfyExtension:
    """What the server calls."""
    return KeepwarmExtension()
