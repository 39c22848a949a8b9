"""Colours as the page writes them: ``#rrggbb``."""

RGB = tuple[int, int, int]
READABLE = 130  # the luminance, 0 to 255, from which text is legible on a dark picture


def rgb_levels(colour: str, otherwise: RGB = (255, 255, 255)) -> RGB:
    """Red, green and blue (0 to 255) of *colour*, with or without ``#``; *otherwise* for a text of another form."""
    digits = colour.lstrip("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return otherwise
    return red, green, blue


def rgb_fractions(colour: str) -> tuple[float, float, float]:
    """Red, green and blue (0 to 1) of *colour*; black for a text of another form."""
    red, green, blue = rgb_levels(colour, (0, 0, 0))
    return red / 255.0, green / 255.0, blue / 255.0


def luminance(colour: RGB) -> float:
    """How bright *colour* looks, 0 to 255 (ITU-R BT.601)."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def readable(colour: RGB) -> RGB:
    """*colour*, mixed with white until it is legible on a dark picture."""
    bright = luminance(colour)
    share = max(0.0, (READABLE - bright) / (255 - bright)) if bright < READABLE else 0.0
    red, green, blue = (round(level + (255 - level) * share) for level in colour)
    return red, green, blue
