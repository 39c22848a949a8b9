"""Ask a starter model for every digit and count how many a classifier of real digits reads as asked.

python -m starter.evaluate digits
python -m starter.evaluate outlines --bare
"""

import argparse
import logging
import pathlib
import sys
import time

import torch
from PIL import Image
from tqdm import tqdm

from comfy.progress_bar import set_progress_bar_enabled
from starter.data import split_digits
from starter.drawing import BarePainter, NodePainter
from starter.export import read_checkpoint
from starter.prompts import DIGIT_NAMES
from starter.reading import DigitReader
from starter.styles import STYLES
from starter.train import CHECKPOINTS

IMAGES = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images"
PROMPTS = ("a handwritten {name}", "the digit {number}", "{name}")
PER_DIGIT = 10
REQUIRED = 0.90
GRID_COLOURS = 24


def prompts_for(digit: int) -> list[str]:
    """The prompts that ask for *digit*."""
    return [prompt.format(name=DIGIT_NAMES[digit], number=digit) for prompt in PROMPTS]


def draw_all(painter: NodePainter | BarePainter, seed: int) -> tuple[torch.Tensor, list[int]]:
    """Ten pictures of each digit, spread over its prompts, and the digit each was asked for. Deterministic in *seed*."""
    pictures: list[torch.Tensor] = []
    asked: list[int] = []
    for digit in tqdm(range(10), desc="digits"):
        prompts = prompts_for(digit)
        for number, prompt in enumerate(prompts):
            count = len(range(number, PER_DIGIT, len(prompts)))
            pictures.append(painter.draw(prompt, count, seed + digit * len(prompts) + number))
            asked += [digit] * count
    return torch.cat(pictures), asked


def save_grid(pictures_B3HW: torch.Tensor, path: pathlib.Path) -> None:
    """Write the pictures as one PNG, ten to a row."""
    rows = [torch.cat(list(row), dim=2) for row in pictures_B3HW.split(PER_DIGIT)]
    pixels = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).quantize(GRID_COLOURS).save(path, optimize=True)


def main() -> None:
    """Draw, read, print the accuracy and write the grid; exit status 1 below the required accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("style", choices=sorted(STYLES))
    parser.add_argument("--checkpoint", type=pathlib.Path, help="default: models/checkpoints/starter-STYLE.safetensors")
    parser.add_argument("--grid", type=pathlib.Path, help="default: docs/images/starter-STYLE.png")
    parser.add_argument("--bare", action="store_true", help="draw with diffusers' networks instead of the server's nodes")
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(given.threads)
    set_progress_bar_enabled(False)
    checkpoint = given.checkpoint or CHECKPOINTS / f"starter-{given.style}.safetensors"
    began = time.monotonic()
    painter = BarePainter(read_checkpoint(checkpoint)) if given.bare else NodePainter(checkpoint, given.sampler, given.scheduler)
    pictures, asked = draw_all(painter, given.seed)
    drawn_s = time.monotonic() - began
    unused, held_out = split_digits()
    reader = DigitReader(given.style, held_out)
    accuracy = reader.accuracy(pictures, asked)
    save_grid(pictures, given.grid or IMAGES / f"starter-{given.style}.png")
    wrong = [f"{digit} read as {found}" for digit, found in zip(asked, reader.read(pictures)) if digit != found]
    print(
        f"{checkpoint.name}: {accuracy:.1%} of {len(asked)} pictures show the digit asked for ({drawn_s:.1f} s); the classifier reads "
        f"{reader.accuracy(reader.render(unused), unused.labels.tolist()):.1%} of {len(unused.labels)} real digits it was not fitted on"
    )
    print("misread: " + (", ".join(wrong) or "none"))
    sys.exit(0 if accuracy >= REQUIRED else 1)


if __name__ == "__main__":
    main()
