"""Prompts of the official templates made small: as many pixels, frames, steps and tokens as still take every way through the nodes."""

import copy
from typing import Any

Prompt = dict[str, dict[str, Any]]

PASSING = ("PrimitiveInt", "PrimitiveFloat", "ComfyMathExpression", "ComfySwitchNode")  # hand on numbers
WIDTHS = ("width", "target_width", "resize_type.width", "resize_type.longer_size", "ref_max_size")
HEIGHTS = ("height", "target_height", "resize_type.height")
LENGTHS = ("length", "frames_number", "num_frames", "amount")
RATES = ("fps", "frame_rate")
ENDS = ("start_at_step", "end_at_step", "step")
STEPS = 2
SECONDS = 1.2  # of a sound that is made
LAST = 10_000  # what templates give for "to the end"
MOST_SECONDS = 30  # a larger number that a length comes of is one of frames
MOST_FRAMES = 1000  # a larger number of frames means all that there are
GUIDED_FRAMES = 120  # of videos with pictures in between: five seconds at 24 per second
SMALLEST_SIDE = 256  # no smaller number is a side
# What is cut down by itself: class, input, value.
FIXED = (
    ("ResolutionSelector", "megapixels", 0.1),
    ("ImageScaleToTotalPixels", "megapixels", 0.01),
    ("TextGenerateLTX2Prompt", "max_length", 4),
    ("TextGenerate", "max_length", 4),
    ("EmptyLatentAudio", "seconds", SECONDS),
    ("EmptyAceStep1.5LatentAudio", "seconds", SECONDS),
    ("EmptyAceStepLatentAudio", "seconds", SECONDS),
    ("TextEncodeAceStepAudio1.5", "duration", SECONDS),
    ("WanInfiniteTalkToVideo", "motion_frame_count", 5),
    ("ImagePadForOutpaint", "left", 16),
    ("ImagePadForOutpaint", "right", 16),
    ("ImagePadForOutpaint", "top", 8),
    ("ImagePadForOutpaint", "bottom", 8),
)


def small(prompt: Prompt, width: int, height: int, length: int) -> Prompt:
    """*prompt* for *width* × *height* pixels and *length* frames; what makes numbers of other numbers stays."""
    made = copy.deepcopy(prompt)
    for identity, node in made.items():
        given, kind = node["inputs"], node["class_type"]
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            reached = _reached(prompt, identity) if kind in PASSING[:2] else {name}
            given[name] = _smaller(value, reached, kind, (width, height, length), prompt)
        if kind == "ManualSigmas":
            given["sigmas"] = _fewer(given["sigmas"])
        for of, name, value in FIXED:
            if kind == of and not isinstance(given.get(name, []), list):
                given[name] = value
    return made


def _reached(prompt: Prompt, identity: str) -> set[str]:
    """The names of the inputs that the number of node *identity* comes to, through others that hand it on."""
    found: set[str] = set()
    for other, node in prompt.items():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] == identity:
                found |= _reached(prompt, other) if node["class_type"] in PASSING else {name}
    return found


def _smaller(value: float, reached: set[str], kind: str, sizes: tuple[int, int, int], prompt: Prompt) -> float:
    """What *value*, given to a node of *kind* and used as what *reached* names, becomes."""
    width, height, length = sizes
    if reached & set(RATES):
        return value
    if "steps" in reached:
        return min(value, STEPS)
    if "seconds" in reached and kind == "PrimitiveFloat":
        return min(value, SECONDS)
    if reached & set(ENDS):
        return value if value in (0, LAST) else 1
    for names, side in ((WIDTHS, width), (HEIGHTS, height)):
        if reached & set(names):
            return side if value >= SMALLEST_SIDE else value
    if "frame_idx" in reached and kind == "PrimitiveFloat":  # seconds
        return value * (length - 1) / GUIDED_FRAMES
    if reached & set(LENGTHS):
        if kind == "PrimitiveFloat":
            return (length - 1) / _rate(prompt)
        if kind == "PrimitiveInt" and value < MOST_SECONDS:
            return 1
        return length if length < value < MOST_FRAMES else value
    return value


def _rate(prompt: Prompt) -> float:
    """The frames per second of the video that *prompt* makes, where it says so."""
    for name in RATES:
        for node in prompt.values():
            if name in node["inputs"] and (found := number_of(prompt, node["inputs"][name])) is not None:
                return found
    return 25.0


def number_of(prompt: Prompt, value: Any) -> float | None:
    """The number that *value* is or is linked to, where no other node than one of a plain number makes it; expressions of one name too."""
    if not isinstance(value, list):
        return float(value)
    node = prompt[value[0]]
    if node["class_type"] in PASSING[:2]:
        return number_of(prompt, node["inputs"]["value"])
    if node["class_type"] == "ComfyMathExpression" and node["inputs"]["expression"] == "a":
        return number_of(prompt, node["inputs"]["values.a"])
    return None


def _fewer(sigmas: str) -> str:
    """The first, one in the middle and the last."""
    numbers = [part.strip() for part in sigmas.split(",")]
    return ", ".join([numbers[0], numbers[len(numbers) // 2], numbers[-1]])
