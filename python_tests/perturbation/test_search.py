"""The settings of the search, which three public signatures spell out."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields

import pytest

import vaal_ext
from vaal_ext.perturbation.search import SearchSettings


@pytest.mark.parametrize("name", ["ldr_scores", "LDRScorer", "vat_loss"])
def test_a_public_signature_has_every_setting_with_its_default(name):
    parameters = inspect.signature(getattr(vaal_ext, name)).parameters
    for field in fields(SearchSettings):
        parameter = parameters[field.name]
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default == default
        assert parameter.annotation == field.type
