"""The images that a run has queried, with the network's guess and the label of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vaal_ext.report.runs import Run

__all__ = ["NoImagesError", "QueriedImage", "evenly_spaced", "queried_images"]


class NoImagesError(Exception):
    """There are no images to show; the text says why."""


@dataclass(frozen=True)
class QueriedImage:
    """A queried sample.

    Attributes:
        name: of the image, in words.
        pixels: float [H, W] or [H, W, 3] in 0..1.
        guess, label: the network's class before the query and the true one; "" where not known.
    """

    name: str
    pixels: np.ndarray
    guess: str
    label: str

    @property
    def wrong(self) -> bool:
        """Whether there is a guess, and the label is known to be another."""
        return bool(self.guess and self.label) and self.guess != self.label


def evenly_spaced(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of the numbers, evenly spaced, the first and the last among them."""
    picked = np.unique(np.linspace(0, len(numbers) - 1, most).round().astype(int))
    return [numbers[i] for i in picked]


def queried_images(run: Run, queries: int, images: int) -> dict[int, list[QueriedImage]]:
    """The first `images` images of at most so many queries of a run, by the query's number.

    Raises:
        NoImagesError: nothing is queried yet, the data are not at hand, or hold no images.
        ValueError: a table of a query is damaged.
    """
    found = run.queries()
    found.pop(0, None)  # the initial set, which no strategy chose
    if not found:
        raise NoImagesError("nothing is queried yet")
    try:
        data = run.load_data()
    except (OSError, ValueError) as error:  # the run may come from another machine
        raise NoImagesError(str(error)) from error
    samples = data.train_x
    found = run.queries(len(samples))  # once more, now that the size of the pool is known
    found.pop(0)
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        raise NoImagesError("its samples are not images")
    low, high = float(samples.min()), float(samples.max())

    def image(index: int, guess: str) -> QueriedImage:
        pixels = (samples[index].numpy() - low) / max(high - low, 1e-12)
        pixels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        return QueriedImage(f"sample {index}", pixels, guess, str(int(data.train_y[index])))

    return {
        number: [image(*row) for row in found[number][:images]]
        for number in evenly_spaced(list(found), queries)
    }
