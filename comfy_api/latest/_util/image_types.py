"""Vector images."""

from collections.abc import Iterable
from io import BytesIO


class SVG:
    """A batch of SVG files, each a ``BytesIO`` of its text."""

    def __init__(self, data: list[BytesIO]) -> None:
        self.data = data

    def combine(self, other: "SVG") -> "SVG":
        """A batch of these files followed by those of *other*; the files are shared, not copied."""
        return SVG([*self.data, *other.data])

    @staticmethod
    def combine_all(svgs: Iterable["SVG"]) -> "SVG":
        """One batch of all files in order."""
        return SVG([file for batch in svgs for file in batch.data])
