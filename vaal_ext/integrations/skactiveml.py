"""scikit-activeml 1.x: LDR as a pool-based query strategy around a SkorchClassifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import SkorchClassifier
from skactiveml.utils import MISSING_LABEL, check_equal_missing_label, check_scalar, check_type
from sklearn.base import clone
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import nn

from vaal_ext.integrations.query import LDRQuery
from vaal_ext.selection import Order

__all__ = ["LDRSampling"]


class LDRSampling(SingleAnnotatorPoolQueryStrategy):
    """Class-balanced samples upward from a percentile of the roughness (the paper's Algorithm 1).

    Parameters are kept as they are, and checked by ``query``, as scikit-learn wants it.

    Args:
        eps, method, num_iters, xi: see :func:`vaal_ext.ldr_scores`.
        percentile, class_prior, order: see :func:`vaal_ext.select`.
        scorer_params: further keywords of :class:`vaal_ext.LDRScorer` in a dict, or None.
        missing_label: value of a missing label.
        random_state: int, RandomState or None; it gives the seed of the start directions.
    """

    def __init__(
        self,
        eps: float,
        method: str = "direct",
        num_iters: int | None = None,
        xi: float | None = None,
        percentile: float = 90.0,
        class_prior: Any = "uniform",
        order: Order = "ascending",
        scorer_params: dict[str, Any] | None = None,
        missing_label: Any = MISSING_LABEL,
        random_state: Any = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.eps = eps
        self.method = method
        self.num_iters = num_iters
        self.xi = xi
        self.percentile = percentile
        self.class_prior = class_prior
        self.order = order
        self.scorer_params = scorer_params

    def query(
        self,
        X: Any,
        y: Any,
        clf: SkorchClassifier,
        fit_clf: bool = True,
        sample_weight: Any = None,
        candidates: Any = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Chooses `batch_size` of the candidates.

        Args:
            X: real array [N, ...], the whole data set.
            y: [N], its labels, `missing_label` where there is none.
            clf: a SkorchClassifier; it is not changed.
            fit_clf: train a clone of it on X and y first; else it must be fitted.
            sample_weight: [N]. SkorchClassifier knows no weights: unequal ones are refused unless
                the fit of a subclass takes them.
            candidates: None for all unlabelled samples, their indices in X, int [M], or samples of
                their own [M, ...]. One of these that is, bit for bit, a row of X starts from the
                same direction as that row; the others count on behind X.
            batch_size: at least 1; with fewer candidates all of them come, with a warning.
            return_utilities: return LDR too.

        Returns:
            int64 [batch_size], as they were picked: indices in X, or in `candidates` where these
            are samples. With `return_utilities` also float64 [batch_size, N] (or [batch_size, M]):
            LDR in nats, NaN at labelled samples, at those that are no candidates, and in row i at
            the i samples picked before. The largest LDR is not always what is picked next: see
            `order` and `class_prior`.

        Raises:
            TypeError: an argument of a wrong type. ValueError: out of its range, shapes that do not
                fit, labelled candidates, none at all, or a network whose logits are not known.
            NotFittedError: with ``fit_clf=False``.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        pool, in_X = self._transform_candidates(candidates, X, y, allow_only_unlabeled=True)
        if len(pool) == 0:
            raise ValueError("expected at least one unlabelled sample to choose from, got none")
        check_type(clf, "clf", SkorchClassifier)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        check_scalar(fit_clf, "fit_clf", bool)
        weights = _fit_weights(clf, sample_weight, y)
        params = {} if self.scorer_params is None else self.scorer_params
        check_type(params, "scorer_params", dict)
        settings = {
            "eps": self.eps,
            "method": self.method,
            "num_iters": self.num_iters,
            "xi": self.xi,
            "percentile": self.percentile,
            "class_prior": self.class_prior,
            "order": self.order,
            "seed": int(self.random_state_.randint(2**31 - 1)),
        }
        ldr = LDRQuery(**params, **settings)
        logits_fn = params.get("logits_fn") or _logits_fn(clf)
        if fit_clf:
            clf = clone(clf).fit(X, y, **weights)
        else:
            check_is_fitted(clf, "neural_net_")

        # Not through skactiveml.utils.simple_batch: it makes [batch_size, N] utilities always.
        sample_index = _places(X, pool) if in_X is None else in_X
        if clf.sample_dtype is not None:
            pool = pool.astype(clf.sample_dtype, copy=False)
        n = None if return_utilities else batch_size  # utilities are of all samples
        scores = ldr.score(clf.neural_net_.module_, pool, sample_index, n, logits_fn=logits_fn)
        pool_index = ldr.choose(scores, batch_size)
        query_index = pool_index if in_X is None else in_X[pool_index].astype(np.int64)
        if not return_utilities:
            return query_index
        utilities = np.full((batch_size, len(pool if in_X is None else X)), np.nan)
        utilities[:, slice(None) if in_X is None else in_X] = scores.ldr
        for row in range(batch_size):
            utilities[row, query_index[:row]] = np.nan
        return query_index, utilities


def _fit_weights(clf: SkorchClassifier, sample_weight: Any, y: np.ndarray) -> dict[str, Any]:
    """Keywords of clf.fit; ValueError where weights would have to be left out."""
    if sample_weight is None:
        return {}
    weights = check_array(sample_weight, ensure_2d=False)
    check_consistent_length(y, weights)
    if has_fit_parameter(clf, "sample_weight"):
        return {"sample_weight": weights}
    if np.any(weights != weights.flat[0]):
        raise ValueError(
            f"{type(clf).__name__}.fit takes no sample_weight: expected None or equal weights"
        )
    return {}


def _logits_fn(clf: SkorchClassifier) -> Callable[[Any], Any]:
    """Takes the logits (up to a constant per sample) out of what the module gives.

    Raises:
        ValueError: the probabilities are not the softmax or the exponential of an output.
    """
    criterion = clf.criterion if isinstance(clf.criterion, type) else type(clf.criterion)
    if clf.forward_outputs is not None:
        place, transform = next(iter(clf.forward_outputs.values()))
        known = isinstance(transform, nn.Softmax) or transform in (torch.exp, torch.softmax)
    else:
        place, known = 0, criterion in (nn.CrossEntropyLoss, nn.NLLLoss)
    if not known:
        raise ValueError(
            "the network's logits are not known: expected criterion CrossEntropyLoss or NLLLoss, "
            "or forward_outputs whose first entry is (place, nn.Softmax(dim=-1)) or (place, "
            "torch.exp); else pass scorer_params={'logits_fn': ...}"
        )
    return lambda output: output[place] if isinstance(output, tuple) else output


def _places(X: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """int64 [M]: the first row of X [N, ...] that a sample equals bit for bit, else N, N + 1, ...

    Rows are compared by hash: should two ever collide, they only share a start direction.
    """
    common = np.result_type(X, samples)
    X, samples = (array.astype(common, copy=False) for array in (X, samples))
    places = {hash(X[place].tobytes()): place for place in reversed(range(len(X)))}
    behind = enumerate(samples, start=len(X))
    found = [places.get(hash(sample.tobytes()), place) for place, sample in behind]
    return np.array(found, dtype=np.int64)
