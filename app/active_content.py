"""Content types that a browser would run: files of these types are only ever handed out as downloads."""

import mimetypes
import re
from urllib.parse import quote

OCTET_STREAM = "application/octet-stream"
ACTIVE_TYPES = frozenset({
    "text/html", "text/html-sandboxed", "application/xhtml+xml", "multipart/related", "message/rfc822", "text/css",
    "text/javascript", "application/javascript", "application/x-javascript", "application/ecmascript", "text/ecmascript",
    "image/svg+xml", "text/xml", "application/xml", "text/xsl", "application/x-shockwave-flash",
})
_ACTIVE_SUFFIXES = frozenset({
    ".htm", ".html", ".shtml", ".xhtml", ".xht", ".js", ".mjs", ".cjs", ".css", ".svg", ".svgz", ".xml", ".xsl", ".xslt", ".mht", ".mhtml",
})
_UNSAFE_IN_HEADER = re.compile(r'[\x00-\x1f\x7f"\\]')


def is_active(content_type: str | None) -> bool:
    """Whether a browser may run what has *content_type* (parameters and case are ignored)."""
    bare = (content_type or "").split(";", 1)[0].strip().lower()
    return bare in ACTIVE_TYPES or bare.endswith(("+xml", "/xml"))


def renders_as_image(content_type: str | None, fetch_destination: str | None) -> bool:
    """Whether an active type is harmless for this request: an SVG that an ``<img>`` asks for runs no script.

    *fetch_destination* is the ``Sec-Fetch-Dest`` header, which page scripts cannot set; without it the answer is no.
    """
    bare = (content_type or "").split(";", 1)[0].strip().lower()
    return bare == "image/svg+xml" and fetch_destination == "image"


def guessed_type(filename: str) -> str:
    """The content type that *filename* suggests, ``application/octet-stream`` when it says nothing."""
    suffix = filename[filename.rfind("."):].lower() if "." in filename else ""
    guessed, encoding = mimetypes.guess_type(filename)
    if guessed is None and suffix in _ACTIVE_SUFFIXES:
        return "text/html"
    if encoding is not None and not is_active(guessed):
        return OCTET_STREAM
    return guessed or OCTET_STREAM


def disposition(filename: str, kind: str = "") -> str:
    """The ``Content-Disposition`` value that names *filename*; *kind* is ``attachment``, ``inline`` or empty."""
    plain = _UNSAFE_IN_HEADER.sub("_", filename)
    ascii_name = plain.encode("ascii", "replace").decode("ascii").replace("?", "_")
    value = f'filename="{ascii_name}"'
    if ascii_name != plain:
        value += f"; filename*=UTF-8''{quote(plain, safe='', errors='replace')}"
    return f"{kind}; {value}" if kind else value


def file_headers(filename: str, fetch_destination: str | None) -> dict[str, str]:
    """Headers to send a stored file with: its type, or for active content a plain download that is never sniffed."""
    content_type = guessed_type(filename)
    if not is_active(content_type):
        return {"Content-Type": content_type, "Content-Disposition": disposition(filename)}
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
    if renders_as_image(content_type, fetch_destination):
        return {**headers, "Content-Type": content_type, "Content-Disposition": disposition(filename)}
    return {**headers, "Content-Type": OCTET_STREAM, "Content-Disposition": disposition(filename, "attachment")}
