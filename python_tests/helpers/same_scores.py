"""Two PoolScores that must be the same."""

import numpy as np

COLUMNS = ("index", "ldr", "pseudo_label", "entropy", "margin")


def assert_same(scores, expected):
    """To the bit, but for the sum of N posteriors, which batches take in another order."""
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(scores, name), getattr(expected, name), name)
    apart = len(scores.index) * 2.0**-53
    np.testing.assert_allclose(scores.posterior_mean, expected.posterior_mean, rtol=apart)
