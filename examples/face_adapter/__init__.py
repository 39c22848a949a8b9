"""An example of a pack that patches a model: a face, told from a picture, becomes extra tokens and a ControlNet's hint, as in InstantID.

Copy this folder into ``custom_nodes``. It shows how a pack keeps a new text or seed from paying for the face again: the adapter is a part
of the RAM model cache, the face's embedding, its tokens and their keys and values are remembered by content, and patches are built once.
``write_random_weights.py`` writes adapters in the real layout; ``faces.py`` stands in for the analysis of faces.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
