"""scikit-activeml's own checks for query strategies. They come with its repository, not with its
wheels: put the folder skactiveml/tests of a checkout into the installed package to run them."""

import unittest

import numpy as np
import pytest
from small_pool import Network

pytest.importorskip(
    "skactiveml.tests.template_query_strategy",
    reason="skactiveml/tests is in scikit-activeml's repository only",
)
from skactiveml.classifier import SkorchClassifier
from skactiveml.tests.template_query_strategy import TemplateSingleAnnotatorPoolQueryStrategy

from vaal_ext.integrations.skactiveml import LDRSampling


class TestLDRSampling(TemplateSingleAnnotatorPoolQueryStrategy, unittest.TestCase):
    def setUp(self):
        X = np.random.default_rng(0).normal(size=(8, 4))
        y = np.array([0.0, 1.0] + [np.nan] * 6)
        # No step: what training draws from torch would make one query differ from the next.
        net = {"max_epochs": 1, "verbose": 0, "train_split": None, "lr": 0.0}
        clf = SkorchClassifier(Network, neural_net_param_dict=net, classes=[0, 1])
        super().setUp(
            qs_class=LDRSampling,
            init_default_params={"eps": 0.5},
            query_default_params_clf={"X": X, "y": y, "clf": clf},
        )

    def test_query_param_clf(self):
        super().test_query_param_clf(test_cases=[])

    def _init_cases(self, name, *cases):
        self._test_param("init", name, list(cases))

    def test_init_param_xi(self):
        self._init_cases("xi", (0.1, ValueError), ("a", ValueError), (None, None))

    def test_init_param_eps(self):
        self._init_cases("eps", (-1.0, ValueError), (None, TypeError), (1, None))

    def test_init_param_num_iters(self):
        self._init_cases("num_iters", (0, ValueError), (1.5, TypeError), (2, None))

    def test_init_param_percentile(self):
        self._init_cases("percentile", (100, ValueError), ("a", TypeError), (50, None))

    def test_init_param_class_prior(self):
        self._init_cases("class_prior", ("a", ValueError), (None, None), ("predicted", None))

    def test_init_param_order(self):
        self._init_cases("order", ("up", ValueError), ("random", None))

    def test_init_param_scorer_params(self):
        self._init_cases("scorer_params", (1, TypeError), ({"batch_size": 2}, None))

    def test_query(self):
        chosen = LDRSampling(**self.init_default_params).query(
            **self.query_default_params_clf, batch_size=6
        )
        assert sorted(chosen) == [2, 3, 4, 5, 6, 7]
