"""Progress reports and node replacements of the public API."""

import logging
from typing import Any

from comfy.cli_args import args
from comfy.lazy_import import lazy_module
from comfy_api.internal.replacement_receiver import replacement_receiver
from comfy_api.internal.singleton import ProxiedSingleton
from comfy_execution.progress_board.state import get_progress_state
from comfy_execution.utils import get_executing_context

from ._io_replace import NodeReplace
from ._tensor_type import Tensor

np = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
log = logging.getLogger(__name__)

DEFAULT_PREVIEW_FORMAT = "JPEG"


def preview_tuple(preview: Any, ignore_size_limit: bool) -> Any:
    """Convert *preview* for the progress registry: (format, PIL image, longest side in pixels or None).

    Accepts a PIL image, a tensor [height, width, channel], or a batch of those, of which it takes the first. Anything else is
    returned unchanged.
    """
    if isinstance(preview, Tensor):
        tensor: Any = preview
        first_HWC = tensor[0] if tensor.ndim == 4 else tensor
        preview = pil_image.fromarray((first_HWC.clamp(0.0, 1.0) * 255.0).byte().cpu().numpy())
    if not hasattr(preview, "save") or not hasattr(preview, "size"):
        return preview
    return getattr(preview, "format", None) or DEFAULT_PREVIEW_FORMAT, preview, None if ignore_size_limit else args.preview_size


class Execution(ProxiedSingleton):
    """Lets a running node report to the server."""

    async def set_progress(
        self, value: float, max_value: float, node_id: str | None = None, preview_image: Any = None, ignore_size_limit: bool = False
    ) -> None:
        """Show how far a node is: *value* of *max_value*, with an optional preview (PIL image or image tensor).

        *node_id* defaults to the running node; outside of a node it must be given (else ``ValueError``). *ignore_size_limit* sends the
        preview at full size.
        """
        context = get_executing_context()
        shown_id = context.node_id if node_id is None and context is not None else node_id
        if shown_id is None:
            raise ValueError("set_progress was called outside of a running node: pass node_id to say which node's bar to move")
        preview = None if preview_image is None else preview_tuple(preview_image, ignore_size_limit)
        get_progress_state().update_progress(node_id=shown_id, value=value, max_value=max_value, image=preview)


class NodeReplacement(ProxiedSingleton):
    """Tells the page which new nodes replace old ones."""

    async def register(self, node_replace: NodeReplace) -> None:
        """Offer *node_replace* for workflows that contain the old node. Does nothing without a server, as in a tool that lists nodes."""
        if not replacement_receiver.deliver(node_replace):
            log.debug("No server is running; the replacement of %s is not registered", node_replace.old_node_id)
