"""Content types that a browser would run: files of these types are only ever handed out as downloads."""

import mimetypes
import re
from urllib.parse import quote

from utils.path_safety import is_dangerous_content_type, renders_safely_as_image

OCTET_STREAM = "application/octet-stream"
_ACTIVE_SUFFIXES = frozenset(
    {".htm", ".html", ".shtml", ".xhtml", ".xht", ".js", ".mjs", ".cjs", ".css", ".svg", ".svgz", ".xml", ".xsl", ".xslt", ".mht", ".mhtml"}
)
_UNSAFE_IN_HEADER = re.compile(r'[\x00-\x1f\x7f"\\]')


def guessed_type(filename: str) -> str:
    """The content type that *filename* suggests, ``application/octet-stream`` when it says nothing."""
    suffix = filename[filename.rfind(".") :].lower() if "." in filename else ""
    guessed, encoding = mimetypes.guess_type(filename)
    if guessed is None and suffix in _ACTIVE_SUFFIXES:
        return "text/html"
    if encoding is not None and not is_dangerous_content_type(guessed):
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
    if not is_dangerous_content_type(content_type):
        return {"Content-Type": content_type, "Content-Disposition": disposition(filename)}
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
    if renders_safely_as_image(content_type, fetch_destination):
        return {**headers, "Content-Type": content_type, "Content-Disposition": disposition(filename)}
    return {**headers, "Content-Type": OCTET_STREAM, "Content-Disposition": disposition(filename, "attachment")}
