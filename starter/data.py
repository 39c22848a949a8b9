"""Scikit-learn's handwritten digits: one half to train the starter models on, the other for the classifier that reads them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

IMAGE_SIDE = 64
FULL_INK = 16.0
MARGIN = 1  # empty pixels around each digit, before enlarging
SPLIT_SEED = 0
HELD_OUT = 0.4  # share of the digits that only the classifier sees
MAX_SHIFT, MAX_ANGLE, MAX_ZOOM = 0.05, 0.09, 0.06  # of half the side, radians, of the size


@dataclass(frozen=True, slots=True)
class Digits:
    """Ink amounts N x 1 x 8 x 8 in 0 to 1, and the digit that each shows (N, int64)."""

    ink: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.ink) != len(self.labels):
            raise ValueError(f"{len(self.ink)} pictures but {len(self.labels)} labels")


def split_digits() -> tuple[Digits, Digits]:
    """(digits the models are trained on, digits held out for the classifier), always the same split."""
    loaded = load_digits()
    parts = train_test_split(loaded.images, loaded.target, test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=loaded.target)
    kept, held, kept_labels, held_labels = (np.asarray(part) for part in parts)
    return _digits(kept, kept_labels), _digits(held, held_labels)


def _digits(images: np.ndarray, labels: np.ndarray) -> Digits:
    ink = torch.from_numpy(images.astype("float32") / FULL_INK)[:, None]
    return Digits(ink, torch.from_numpy(labels.astype("int64")))


def enlarge(ink_B188: torch.Tensor) -> torch.Tensor:
    """Ink amounts at 64 x 64 with a margin, smoothly interpolated, 0 to 1."""
    return F.interpolate(F.pad(ink_B188, (MARGIN,) * 4), size=IMAGE_SIDE, mode="bicubic", align_corners=False).clamp(0, 1)


def jitter(ink_B1HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same pictures slightly moved, turned and zoomed; the ground is 0."""
    shift, turn, zoom = (torch.rand(len(ink_B1HW), columns, generator=generator) * 2 - 1 for columns in (2, 1, 1))
    angle, size = turn[:, 0] * MAX_ANGLE, 1 + zoom[:, 0] * MAX_ZOOM
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * size, -angle.sin() * size, shift[:, 0] * MAX_SHIFT], 1),
            torch.stack([angle.sin() * size, angle.cos() * size, shift[:, 1] * MAX_SHIFT], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrix, list(ink_B1HW.shape), align_corners=False)
    return F.grid_sample(ink_B1HW, grid, padding_mode="zeros", align_corners=False)
