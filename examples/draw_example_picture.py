"""Draws ``input/example.png``: soft colours with a few shapes, 512×512.

Usage: python examples/draw_example_picture.py [FILE]
"""

import pathlib
import sys

import numpy
from PIL import Image, ImageDraw, ImageFilter

SIDE = 512
OVERSAMPLING = 2


def background() -> Image.Image:
    """Three slow waves, one per colour channel."""
    y, x = numpy.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [0.55 + 0.35 * numpy.sin(2.6 * x + 1.1 * y + phase) * numpy.cos(1.7 * y - 0.8 * x + phase) for phase in (0.4, 2.3, 4.0)]
    return Image.fromarray((numpy.stack(waves, axis=-1).clip(0, 1) * 255).astype(numpy.uint8))


def shapes() -> Image.Image:
    """A sun, hills and a small house on a transparent ground."""
    side = SIDE * OVERSAMPLING
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)

    def points(*values: float) -> list[float]:
        return [value * side for value in values]

    draw.ellipse(points(0.62, 0.10, 0.84, 0.32), fill=(255, 214, 92, 255))
    draw.ellipse(points(-0.25, 0.62, 0.75, 1.45), fill=(56, 118, 102, 255))
    draw.ellipse(points(0.35, 0.70, 1.35, 1.50), fill=(84, 150, 96, 255))
    draw.rectangle(points(0.24, 0.52, 0.42, 0.68), fill=(240, 232, 220, 255))
    draw.polygon(points(0.21, 0.53, 0.33, 0.40, 0.45, 0.53), fill=(186, 74, 62, 255))
    draw.rectangle(points(0.31, 0.59, 0.36, 0.68), fill=(104, 72, 60, 255))
    draw.rectangle(points(0.265, 0.565, 0.30, 0.60), fill=(120, 180, 214, 255))
    return layer.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(path: str) -> None:
    """Draw the picture and write it to *path*."""
    picture = background().convert("RGBA")
    layer = shapes()
    shadow = Image.new("RGBA", layer.size, (20, 30, 60, 0))
    shadow.putalpha(layer.getchannel("A").filter(ImageFilter.GaussianBlur(12)).point(lambda level: level // 3))
    picture.alpha_composite(shadow)
    picture.alpha_composite(layer)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    picture.convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).resolve().parents[1] / "input" / "example.png"))
