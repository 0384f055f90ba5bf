"""Handwritten digits that are somewhere else on the canvas whenever they are read."""

import numpy as np
import sklearn
from sklearn.datasets import load_digits


class MovingDigits:
    """scikit-learn's digits, 8x8 pixels, at a random place of a larger canvas.

    The place is drawn from numpy's global RNG, which Trainmaster seeds for each sample: in training a digit moves from
    epoch to epoch, in validation and test it stays, and worker processes, ranks and a resume change nothing.

    Args:
        margin: Pixels around the digit.
    """

    classes = [str(digit) for digit in range(10)]

    def __init__(self, margin=2):
        self.margin = margin
        digits = load_digits()
        self.images = (digits.images / 16).astype(np.float32)
        self.targets = digits.target  # known without reading the rows: the split is stratified
        self.fingerprint = f"scikit-learn {sklearn.__version__}, digits, margin {margin}"

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        side = 8 + 2 * self.margin
        canvas = np.zeros((1, side, side), np.float32)
        down, right = np.random.randint(0, 2 * self.margin + 1, 2)
        canvas[0, down : down + 8, right : right + 8] = self.images[index]
        return canvas, self.targets[index]
