"""What a project is told when it begins: images, classes, network, strategy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vaal_ext.checks import require_int, require_number
from vaal_ext.experiment.config import OF_VAAL, RunConfig
from vaal_ext.pool.radius import lengths_for
from vaal_ext.strategies import parse_strategy

__all__ = ["SKIP", "ProjectConfig"]

SKIP = "skip"  # the answer of a person who cannot tell

# Of a run's settings those that mean nothing here: nobody knows the labels beforehand, and a
# project ends when the people do.
_NOT_OF_A_PROJECT = ("dataset", "data_root", "initial", "rounds", "warm_start", "twins")
_RUN = tuple(field.name for field in fields(RunConfig) if field.name not in _NOT_OF_A_PROJECT)
_OF_THE_QUERY_ALONE = (*OF_VAAL, "query_size", "pool_size", "device", "on_unreadable")


@dataclass(frozen=True)
class ProjectConfig:
    """A project's settings, checked; what ``config.json`` holds.

    Attributes:
        images: the folder of images, absolute; see :class:`~vaal_ext.labelling.images.ImageFiles`.
        classes: the names of the classes, two or more, in the order of the network's outputs.
        test: a folder of labelled images, CLASS/IMAGE, to evaluate on; None holds labels out.
        held_out: the share of the labels that is held out where there is no test folder, in [0, 1).
        model: the network as "package.module:factory" (called without arguments, one output for
            each class); None: :class:`~vaal_ext.models.PaperCNN`.
        image_size: see :class:`~vaal_ext.labelling.images.ImageFiles`.
        predictions: whether Label Studio's tasks show the network's guess; see
            :mod:`~vaal_ext.labelling.handout`.
        run: the settings of strategy and training, as those of a run on ``folder:PATH``; its
            device is None where the machine decides, its steps are None where the number of
            labels does, eps and xi where the images do (see :meth:`search_lengths`), and its
            ``on_unreadable`` is for all steps.
    """

    images: str
    classes: tuple[str, ...]
    test: str | None
    held_out: float
    model: str | None
    image_size: int | None
    predictions: bool
    run: RunConfig

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> ProjectConfig:
        """The settings by name, those of a run among them; what is missing or None is filled in.

        Raises:
            TypeError, ValueError: what was expected and what came.
        """
        own = [field.name for field in fields(cls) if field.name != "run"]
        given = {name: value for name, value in settings.items() if value is not None}
        unknown = sorted(given.keys() - {*own, *_RUN})
        if unknown:
            near = difflib.get_close_matches(unknown[0], [*own, *_RUN], n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(
                f"a project has no setting {unknown[0]!r}{meant}; it has {', '.join([*own, *_RUN])}"
            )
        for name in ("images", "classes"):
            if name not in given:
                raise ValueError(f"a project needs {name}")
        classes = _checked_classes(given["classes"])
        images = _absolute("images", given["images"])
        of_run = {name: value for name, value in given.items() if name in _RUN}
        if "method" in given and "vat_method" not in settings:
            # Of a project that was begun when the regulariser had one search only.
            of_run["vat_method"] = "finite-difference" if "vat_weight" in given else None
        if "class_prior" in settings:  # where None is a value
            of_run["class_prior"] = settings["class_prior"]
        run = RunConfig(dataset=f"folder:{images}", rounds=1, **{"strategy": "vaal"} | of_run)
        if parse_strategy(run.strategy)[0] == "dfal":
            run = replace(run, twins=False)  # a project keeps labels, and twins have none
        left_open = {name: getattr(run, name) for name in ("device", "steps", "eps", "xi")}
        run = replace(run.resolved().settings, **left_open)
        if isinstance(run.class_prior, list) and len(run.class_prior) != len(classes):
            raise ValueError(
                f"class_prior must have one weight for each of the {len(classes)} classes, got "
                f"{len(run.class_prior)}"
            )
        held_out = given.get("held_out", 0.2)
        require_number("held_out", held_out)
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, got {held_out}")
        size = given.get("image_size")
        if size is not None:
            require_int("image_size", size, 8)
        model = given.get("model")
        if not isinstance(model, str | None):
            raise TypeError(f"model must be package.module:factory, got {model!r}")
        test = None if "test" not in given else _absolute("test", given["test"])
        predictions = given.get("predictions", False)
        if not isinstance(predictions, bool):
            raise TypeError(f"predictions must be True or False, got {predictions!r}")
        return cls(images, classes, test, float(held_out), model, size, predictions, run)

    def search_lengths(self, images: Dataset[Any] | Tensor) -> dict[str, Any]:
        """eps and xi of the query, where the strategy has them: see
        :func:`vaal_ext.pool.radius.lengths_for`."""
        if parse_strategy(self.run.strategy)[0] != "vaal":
            return {}
        eps, xi = lengths_for(images, self.run.eps, self.run.xi)
        return {"eps": eps} | ({"xi": xi} if self.run.method == "finite-difference" else {})

    def settings(self) -> dict[str, Any]:
        """By name, as :meth:`from_settings` takes them and JSON can hold them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        run = asdict(own.pop("run"))
        return own | {"classes": list(self.classes)} | {name: run[name] for name in _RUN}

    def training_settings(self) -> dict[str, Any]:
        """Those of the settings that a trained network depends on."""
        left_out = {*_OF_THE_QUERY_ALONE, "images", "strategy", "predictions"}
        kept = {name: value for name, value in self.settings().items() if name not in left_out}
        if kept["vat_method"] is None:
            del kept["vat_method"]  # as projects of before have it, whose weights are still good
        return kept | {"regularised": parse_strategy(self.run.strategy)[1]}


def _absolute(name: str, path: Any) -> str:
    if not isinstance(path, str | Path):
        raise TypeError(f"{name} must be the path of a folder, got {path!r}")
    return str(Path(os.path.expanduser(path)).resolve())


def _checked_classes(classes: Any) -> tuple[str, ...]:
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        raise TypeError(f"classes must be a list of names, got {classes!r}")
    for name in classes:
        if not isinstance(name, str):
            raise TypeError(f"classes must be names, got {name!r}")
        if name != name.strip() or not name or name == SKIP:
            raise ValueError(
                f"the name of a class must not be empty, {SKIP!r} or have spaces around it, "
                f"got {name!r}"
            )
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"classes must be two different names or more, got {', '.join(classes)}")
    return tuple(classes)
