"""Says where a path may lead, and which content types are safe to hand to a browser unchanged."""

import os

ACTIVE_TYPES = frozenset(
    {
        "text/html",
        "text/html-sandboxed",
        "application/xhtml+xml",
        "text/javascript",
        "application/javascript",
        "application/x-javascript",
        "application/ecmascript",
        "text/ecmascript",
        "text/css",
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "application/xslt+xml",
        "text/xsl",
        "application/mathml+xml",
        "application/rdf+xml",
        "multipart/x-mixed-replace",
        "multipart/related",
        "message/rfc822",
    }
)


def is_within_directory(directory: str, target: str) -> bool:
    """Whether *target* is *directory* or lies below it, with symbolic links of both followed. Never raises."""
    try:
        root, path = os.path.realpath(directory), os.path.realpath(target)
        return os.path.commonpath((root, path)) == root
    except (ValueError, OSError):
        return False


def is_dangerous_content_type(content_type: str | None) -> bool:
    """Whether a browser that shows this type could run code from it (parameters such as charset are ignored)."""
    bare = (content_type or "").split(";", 1)[0].strip().lower()
    return bare in ACTIVE_TYPES or bare.endswith(("+xml", "/xml"))


def renders_safely_as_image(content_type: str | None, sec_fetch_dest: str | None) -> bool:
    """Whether the type is SVG asked for by an ``<img>``, where browsers run no scripts."""
    bare = (content_type or "").split(";", 1)[0].strip().lower()
    return bare == "image/svg+xml" and (sec_fetch_dest or "").strip().lower() == "image"
