"""The rounds of a run, one after another: query, label, train, evaluate. No file is touched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from vaal_ext.experiment.config import ResolvedConfig
from vaal_ext.experiment.datasets.load import DataSplit
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.experiment.state import Round, State, Twins
from vaal_ext.experiment.training import evaluate, model_for, train
from vaal_ext.network.device import device_named
from vaal_ext.pool.scores import PoolScores
from vaal_ext.strategies import QueryContext
from vaal_ext.vat import VatTerm

__all__ = ["Experiment", "initial_indices"]


def initial_indices(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw the initial set: n of the labels' positions, int64 [n], distinct, in random order.

    They are drawn at random, as in the paper, but every class comes at least once; with fewer
    samples than classes, no class comes twice.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[shuffled], return_index=True)
    first.sort()
    return np.concatenate([shuffled[first], np.delete(shuffled, first)])[:n]


class Experiment:
    """What stays the same from round to round, and how one round follows from another."""

    def __init__(self, config: ResolvedConfig, data: DataSplit, *, bars: bool) -> None:
        """`config` fits `data`, which is what it names."""
        self.config = config
        self.data = data
        self.bars = bars
        self.device = device_named(config.settings.device)
        self.val = data.val_x.to(self.device), data.val_y.to(self.device)
        self.test = data.test_x.to(self.device), data.test_y.to(self.device)

    def next_round(self, before: State | None) -> tuple[State, PoolScores | None]:
        """The state after one more round, and the scores that its query used, if any."""
        if before is None:
            labels = self.data.train_y.numpy()
            seed = self._seed(Stream.INITIAL, 0)
            labelled = initial_indices(labels, self.config.budget.initial, seed)
            return self.learn(None, labelled, None, 0.0, 0.0), None
        started = time.perf_counter()
        strategy = self.config.strategy
        pool, context = self._pool(before)
        model = self.model(before.rounds[-1].round)
        model.load_state_dict(before.weights)
        scores = strategy.score(model, pool, context)
        scored = time.perf_counter()
        pool_index = strategy.pick(scores, self.config.budget.query_size, context)
        selected = time.perf_counter()
        made = strategy.make_twins(model, pool[torch.from_numpy(pool_index)], context)
        twinned = time.perf_counter()
        queried = context.sample_index[pool_index]
        twins = before.twins
        if made is not None:
            twins = _with_twins(twins, made[0], torch.from_numpy(queried)[made[1]])
        labelled = np.concatenate([before.labelled, queried])
        score_seconds = scored - started + twinned - selected
        return self.learn(before, labelled, twins, score_seconds, selected - scored), scores

    def train(
        self,
        number: int,
        labelled: np.ndarray,
        weights: dict[str, Tensor] | None = None,
        twins: Twins | None = None,
        on_step: Callable[[nn.Module, int], None] | None = None,
    ) -> tuple[nn.Module, float]:
        """The network of round `number`, trained on the samples labelled by then, and its loss.

        It is the same network every time, on one machine. `labelled` is int64 [labels], indices in
        the data set's pool; `weights` are what it starts from, by default fresh ones; `twins` are
        trained on besides; `on_step` is called after every step with the network and the number of
        steps taken.
        """
        model, how = self.model(number), self.config.training
        if weights is not None:
            model.load_state_dict(weights)
        index = torch.from_numpy(labelled)
        x = self.data.train_x[index]
        if twins is not None:
            x, index = torch.cat([x, twins.x]), torch.cat([index, twins.of])
        loss = train(
            model,
            x.to(self.device),
            self.data.train_y[index].to(self.device),
            steps=how.steps,
            learning_rate=how.learning_rate,
            batch_size=how.batch_size,
            seed=self._seed(Stream.LOADER, number),
            progress=self.bars,
            vat=self._vat_term(number),
            on_step=None if on_step is None else partial(on_step, model),
        )
        return model, loss

    def _pool(self, before: State) -> tuple[Tensor, QueryContext]:
        """The unlabelled samples, or a part of them, in the order of the data set."""
        number = len(before.rounds)
        unlabelled = np.setdiff1d(np.arange(len(self.data.train_y)), before.labelled)
        limit = self.config.budget.pool_size
        if limit is not None and limit < len(unlabelled):
            rng = np.random.default_rng(self._seed(Stream.SUBSAMPLE, number))
            unlabelled = np.sort(rng.choice(unlabelled, size=limit, replace=False))
        context = QueryContext(
            n=self.config.budget.query_size,
            sample_index=unlabelled,
            num_classes=self.data.num_classes,
            seed=self._seed(Stream.QUERY, number),
            val_accuracy=before.rounds[-1].val_accuracy,
            progress=self.bars,
            labelled=partial(self._labelled, before.labelled),
            look=number == 1,  # the later queries are of the same kind of network and pool
        )
        return self.data.train_x[torch.from_numpy(unlabelled)], context

    def _labelled(self, labelled: np.ndarray) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(labelled)
        return self.data.train_x[index], self.data.train_y[index]

    def learn(
        self,
        before: State | None,
        labelled: np.ndarray,
        twins: Twins | None,
        score_seconds: float,
        select_seconds: float,
    ) -> State:
        """Train a fresh network, or the one before, on the labelled samples and evaluate it.

        `labelled` is int64 [labels], indices in the data set's pool, and the state's from then on;
        the seconds are what the query took. ValueError where the training diverged.
        """
        rounds = () if before is None else before.rounds
        number = len(rounds)
        started = time.perf_counter()
        weights = before.weights if before is not None and self.config.training.warm_start else None
        model, train_loss = self.train(number, labelled, weights, twins=twins)
        train_seconds = time.perf_counter() - started
        test_accuracy, test_loss = evaluate(model, *self.test)
        val_accuracy, _ = evaluate(model, *self.val)
        if not (math.isfinite(train_loss) and math.isfinite(test_loss)):
            rate = self.config.training.learning_rate
            raise ValueError(
                f"the training of round {number} diverged (loss {train_loss:g}, on the test set "
                f"{test_loss:g}); the learning rate is {rate:g}, take a smaller one"
            )
        row = Round(
            round=number,
            labels=len(labelled),
            test_accuracy=test_accuracy,
            test_loss=test_loss,
            val_accuracy=val_accuracy,
            train_loss=train_loss,
            train_seconds=round(train_seconds, 4),
            score_seconds=round(score_seconds, 4),
            select_seconds=round(select_seconds, 4),
        )
        return State((*rounds, row), labelled, model.state_dict(), twins)

    def model(self, number: int) -> nn.Module:
        """The untrained network of a round, on the device."""
        return model_for(self.data, seed=self._seed(Stream.WEIGHTS, number)).to(self.device)

    def _vat_term(self, number: int) -> VatTerm | None:
        """Over all samples of the data set, labelled or not, the D of Eq. 3; not over twins."""
        if self.config.regulariser is None:
            return None
        x = self.data.train_x.to(self.device)
        return VatTerm(self.config.regulariser, x, self._seed(Stream.VAT, number))

    def _seed(self, stream: Stream, number: int) -> int:
        return stream_seed(self.config.settings.seed, stream, number)


def _with_twins(before: Twins | None, x: Tensor, of: Tensor) -> Twins:
    if before is None:
        return Twins(x, of)
    return Twins(torch.cat([before.x, x]), torch.cat([before.of, of]))
