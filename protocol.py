"""The kinds of binary WebSocket frames: the first four bytes of each, as a big-endian number."""


class BinaryEventTypes:
    """Plain integers, because packs pass them to ``send_sync`` as event names.

    ``UNENCODED_PREVIEW_IMAGE`` never goes on the wire: it asks the server to encode a picture and send it as ``PREVIEW_IMAGE``.
    """

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4
