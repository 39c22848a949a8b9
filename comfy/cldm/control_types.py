"""The kinds of hint pictures that union ControlNets know, by the names that users see, and their numbers."""

_NAMES = ("openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd", "normal", "segment", "tile", "repaint")
UNION_CONTROLNET_TYPES = {name: number for number, name in enumerate(_NAMES)}
