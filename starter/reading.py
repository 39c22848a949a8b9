"""A classifier that reads digits from pictures, trained on real digits that no starter model has seen."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from sklearn.svm import SVC

from starter.data import Digits, enlarge
from starter.styles import STYLES

READING_SIDE = 16


class DigitReader:
    """Reads digits drawn in one style. Fitted on *digits* rendered in that style, without any change of place or size."""

    def __init__(self, style: str, digits: Digits) -> None:
        self._style = style
        self._classifier = SVC(C=10.0, gamma="scale").fit(_features(self.render(digits)), digits.labels.numpy())

    def render(self, digits: Digits) -> torch.Tensor:
        """Real digits as pictures in the reader's style: N x 3 x 64 x 64, 0 to 1."""
        return STYLES[self._style](enlarge(digits.ink))

    def read(self, pictures_B3HW: torch.Tensor) -> list[int]:
        """The digit in each picture (values 0 to 1)."""
        return [int(digit) for digit in self._classifier.predict(_features(pictures_B3HW))]

    def accuracy(self, pictures_B3HW: torch.Tensor, labels: list[int]) -> float:
        """The share of pictures in which the reader finds the digit of *labels*."""
        read = self.read(pictures_B3HW)
        return sum(found == asked for found, asked in zip(read, labels)) / len(labels)


def _features(pictures: torch.Tensor) -> np.ndarray:
    return F.adaptive_avg_pool2d(pictures.float().clamp(0, 1), READING_SIDE).flatten(1).numpy()
