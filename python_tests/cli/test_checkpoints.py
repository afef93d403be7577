"""Weights in the files in which people have them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import score_arguments
from torch import nn

from vaal_ext.cli.app import main
from vaal_ext.network.checkpoint import read_checkpoint, state_for
from vaal_ext.network.user_model import load_model
from vaal_ext.pool.scores import PoolScores


def state() -> dict[str, torch.Tensor]:
    return torch.load("net.pt", weights_only=True)


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state().items()}


def zeros() -> dict[str, torch.Tensor]:
    return {key: torch.zeros_like(value) for key, value in state().items()}


CHECKPOINTS: dict[str, tuple[Callable[[], object], str]] = {
    "plain": (state, ""),
    "Lightning": (
        lambda: {
            "epoch": 3,
            "pytorch-lightning_version": "2.5",
            "state_dict": prefixed("model."),
            "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": []}],
            "hyper_parameters": {"width": 8},
        },
        "its entry state_dict, without model. in the names",
    ),
    "DDP": (lambda: prefixed("module."), "without module. in the names"),
    "compiled": (lambda: prefixed("_orig_mod."), "without _orig_mod. in the names"),
    "compiled, in DDP, in Lightning": (
        lambda: {"state_dict": prefixed("net.module._orig_mod.")},
        "its entry state_dict, without net.module. and _orig_mod. in the names",
    ),
    "model": (lambda: {"model": state(), "epoch": 1}, "its entry model"),
    "model_state_dict": (
        lambda: {"model_state_dict": state(), "optimizer_state_dict": {"state": {}}},
        "its entry model_state_dict",
    ),
    "another entry": (lambda: {"net": state(), "acc": 93.1}, "its entry net"),
    "averages beside": (lambda: {"ema": zeros(), "model": state()}, "its entry model"),
    "of another network beside": (
        lambda: {"discriminator": {"w": torch.ones(2)}, "classifier": prefixed("module.")},
        "its entry classifier, without module. in the names",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_gives_the_scores_of_its_weights(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, done = CHECKPOINTS[name]
    torch.save(make(), "made.ckpt")
    network, told = load_model("factories:net", Path("made.ckpt"))
    assert told == done
    for key, value in network.state_dict().items():
        assert torch.equal(value, state()[key])
    assert main(score_arguments(weights="made.ckpt")) == 0
    assert (f"; made.ckpt: {done}\n" if done else "eps 0.5\n") in capsys.readouterr().err
    made = PoolScores.load("scores.npz")
    assert main(score_arguments()) == 0
    np.testing.assert_array_equal(made.ldr, PoolScores.load("scores.npz").ldr)


def test_the_networks_own_wrapping_is_no_reason_to_leave_anything_out() -> None:
    own = {"model.weight": torch.ones(2)}
    assert state_for(own, own) == (own, "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # A prefix is left out only where everything fits without it: nothing is dropped unseen.
        (
            lambda: prefixed("model.") | {"loss.weight": torch.ones(3)},
            "the network's keys are all there with model. before them, and the file has others "
            "too: loss.weight",
        ),
        (
            lambda: {"state_dict": {"model.1.weight": torch.ones(8, 12)}},
            "its entry state_dict: the file lacks 1.weight (and 3 more)",
        ),
        (lambda: {"a": state(), "b": zeros()}, "several entries fit (a, b): save the one"),
        (
            lambda: prefixed("module.") | {"module.1.weight": torch.ones(2)},
            "without module. in the names: 1.weight is [2] in the file and [8, 12]",
        ),
        (lambda: {"epoch": 3}, "the file lacks 1.weight (and 3 more); the network has no epoch"),
        (lambda: {0: torch.ones(2)}, "must hold a state dict"),
    ],
)
def test_what_does_not_fit_is_refused(
    refused: Callable[..., str], make: Callable[[], object], message: str
) -> None:
    torch.save(make(), "made.pt")
    refused(score_arguments(weights="made.pt"), message=message)


def test_a_network_that_renames_keys_itself_still_does(place: Path) -> None:
    (place / "own_way.py").write_text(
        "from factories import net as plain\n"
        "def net():\n"
        "    made = plain()\n"
        "    made.register_load_state_dict_pre_hook(rename)\n"
        "    return made\n"
        "def rename(module, state, prefix, *_):\n"
        "    for key in [k for k in state if k.startswith('old_')]:\n"
        "        state[key.removeprefix('old_')] = state.pop(key)\n"
    )
    torch.save(prefixed("old_"), "old.pt")
    network, told = load_model("own_way:net", Path("old.pt"))
    assert told == ""
    assert torch.equal(network.state_dict()["1.weight"], state()["1.weight"])


class Whole(nn.Linear):
    """A network that is saved whole, as an object of a class."""


def test_a_refused_pickle_gets_no_advice_to_load_it_all_the_same(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Whole(2, 2), "whole.pt")
    text = refused(score_arguments(weights="whole.pt"), message="save it with torch.save(model.")
    assert "(here test_checkpoints.Whole), which is never unpickled" in text
    with pytest.raises(ValueError, match=r"whole\.pt") as caught:
        read_checkpoint(Path("whole.pt"))
    error = caught.value
    while error is not None:  # nothing of torch's text is anywhere behind it
        assert "weights_only" not in str(error)
        error = error.__context__
    monkeypatch.setenv("VAAL_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r"whole\.pt") as caught:
        main(score_arguments(weights="whole.pt"))
    shown = "".join(traceback.format_exception(caught.value))
    for advice in ("set to `False`", "weights_only=False", "add_safe_globals", "trusted source"):
        assert advice not in text + shown


def test_safetensors(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(prefixed("module."), "net.safetensors")
    network, told = load_model("factories:net", Path("net.safetensors"))
    assert told == "without module. in the names"
    assert torch.equal(network.state_dict()["1.weight"], state()["1.weight"])
    whole = Path("net.safetensors").read_bytes()
    for name, content in (("half", whole[: len(whole) // 2]), ("text", b"no such thing")):
        Path(f"{name}.safetensors").write_bytes(content)
        refused(
            score_arguments(weights=f"{name}.safetensors"),
            message=f"{name}.safetensors is no complete .safetensors file",
        )
    refused(score_arguments(weights="no.safetensors"), message="no.safetensors: No such file")


def test_safetensors_without_the_library(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    Path("net.safetensors").write_bytes(b"")
    refused(
        score_arguments(weights="net.safetensors"),
        message="net.safetensors needs safetensors: pip install safetensors",
    )
