"""The extension of a module whose nodes are V3 classes."""

from collections.abc import Callable, Coroutine

from comfy_api.latest import ComfyExtension, io


class ListedNodes(ComfyExtension):
    """An extension that has the nodes it is made with."""

    def __init__(self, nodes: list[type[io.ComfyNode]]) -> None:
        super().__init__()
        self._nodes = nodes

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes, in a new list."""
        return list(self._nodes)


def extension_of(*nodes: type[io.ComfyNode]) -> Callable[[], Coroutine[None, None, ListedNodes]]:
    """A module's ``comfy_entrypoint``: an asynchronous function, as ComfyUI's are, that makes an extension with *nodes*."""

    async def comfy_entrypoint() -> ListedNodes:
        return ListedNodes(list(nodes))

    return comfy_entrypoint
