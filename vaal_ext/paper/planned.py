"""The runs behind an exhibit: which they are, where they lie, and whether the data suffice."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vaal_ext.checks import require_int
from vaal_ext.experiment.begun import config_differences
from vaal_ext.experiment.config import ResolvedConfig, RunConfig
from vaal_ext.experiment.datasets.load import content_key, load_dataset
from vaal_ext.experiment.defaults import run_settings
from vaal_ext.experiment.loop import check_fits
from vaal_ext.experiment.provenance import fingerprint
from vaal_ext.experiment.seeds import Stream, stream_seed
from vaal_ext.paper.plan import Exhibit
from vaal_ext.report.runs import Run, load_run

__all__ = ["Overrides", "PlannedRun", "check_data", "list_runs", "plan_runs", "runs_of"]

# What the name of a run's folder does not tell: it stands elsewhere in the path, or is no part of
# what is run.
_NOT_IN_NAME = ("dataset", "data_root", "strategy", "seed", "device")


@dataclass(frozen=True)
class Overrides:
    """What the user asked for in place of an exhibit's own numbers; None: as the exhibit has it.

    Attributes:
        data_root: see :func:`vaal_ext.experiment.datasets.load.load_dataset`.
        data: a data set to run on instead, with the settings of the exhibit's (CIFAR-10 saved as
            images: ``folder:PATH``); not for the exhibits that are about one query.
        seeds: how many, from the exhibit's first upward.
        rounds: queries of a run; not for the exhibits that are about one query.
        variants: the labels of those to run; none: all.
        pool_size, steps, device: see :class:`~vaal_ext.experiment.config.RunConfig`.
    """

    data_root: str | None = None
    data: str | None = None
    variants: tuple[str, ...] = ()
    seeds: int | None = None
    rounds: int | None = None
    pool_size: int | None = None
    steps: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "rounds", "pool_size", "steps"):
            if getattr(self, name) is not None:
                require_int(name, getattr(self, name), 1)


@dataclass(frozen=True)
class PlannedRun:
    """One run: the data set and the variant it belongs to, its settings, its folder."""

    dataset: str
    label: str
    config: ResolvedConfig
    folder: Path

    def load(self) -> Run | None:
        """What the folder holds; None before the first round.

        ValueError if it is another run's, or damaged.
        """
        if not (self.folder / "rounds.csv").is_file():
            return None
        found = load_run(self.folder)
        # As config.json would have it.
        wanted = json.loads(json.dumps(asdict(self.config.settings)))
        differences = config_differences(found.config, wanted)
        if differences:
            raise ValueError(f"{self.folder} holds a different run: {'; '.join(differences)}")
        return found

    @property
    def finished(self) -> bool:
        """Whether the folder holds all rounds. ValueError: see :meth:`load`."""
        found = self.load()
        return found is not None and found.finished


def plan_runs(exhibits: Sequence[Exhibit], overrides: Overrides, out: Path) -> list[PlannedRun]:
    """The runs of :func:`list_runs`, once :func:`check_data` has found nothing wrong.

    TypeError, ValueError, OSError: see there.
    """
    planned = list_runs(exhibits, overrides, out)
    check_data(planned)
    return planned


def list_runs(exhibits: Sequence[Exhibit], overrides: Overrides, out: Path) -> list[PlannedRun]:
    """The runs that the exhibits need, each once, seed by seed.

    The folder of a run is named after what differs from its data set's settings, so exhibits
    share the runs that they have in common. TypeError, ValueError: a bad setting.
    """
    planned: dict[Path, PlannedRun] = {}
    for exhibit in exhibits:
        for item in runs_of(exhibit, overrides, out):
            planned.setdefault(item.folder, item)
    return sorted(planned.values(), key=lambda item: item.config.settings.seed)


def check_data(planned: Sequence[PlannedRun]) -> None:
    """Nothing, where every run has the data it needs, and those that are begun have the same.

    Raises:
        TypeError, ValueError, OSError: a bad setting, or data that are missing or do not suffice;
            see :func:`vaal_ext.experiment.loop.run`.
    """
    checked: set[tuple[str, str]] = set()
    loaded: tuple[str, int | None] | None = None
    for item in sorted(planned, key=_dataset_and_seed):
        config, found = item.config.settings, item.load()
        if (item.dataset, item.label) in checked and found is None:
            continue
        if loaded != content_key(config.dataset, config.seed):
            loaded = content_key(config.dataset, config.seed)
            split_seed = stream_seed(config.seed, Stream.SPLIT)
            data = load_dataset(config.dataset, config.data_root, split_seed)
            sha256 = None
        if (item.dataset, item.label) not in checked:
            checked.add((item.dataset, item.label))
            check_fits(item.config, data)
        if found is not None:
            sha256 = sha256 or fingerprint(data)
            if found.data_sha256 != sha256:
                raise ValueError(
                    f"{item.folder} holds a run that was made from other data than those of "
                    f"{config.dataset} here"
                )


def _dataset_and_seed(item: PlannedRun) -> tuple[str, int]:
    return item.config.settings.dataset, item.config.settings.seed


def runs_of(exhibit: Exhibit, overrides: Overrides, out: Path) -> Iterator[PlannedRun]:
    """The runs of one exhibit as the user asked for them. TypeError, ValueError: a bad setting."""
    given = {
        name: getattr(overrides, name)
        for name in ("data_root", "pool_size", "steps", "device")
        if getattr(overrides, name) is not None
    }
    if overrides.data is not None and exhibit.one_query:
        raise ValueError(
            f"{exhibit.title!r} is about {exhibit.datasets[0]}: data cannot replace it"
        )
    seeds = overrides.seeds or exhibit.seeds
    rounds = exhibit.rounds
    if overrides.rounds is not None and not exhibit.one_query:
        rounds = overrides.rounds
    for dataset in exhibit.datasets:
        for label in overrides.variants or exhibit.variants:
            if label not in exhibit.variants:
                raise ValueError(_unknown_variant(label, exhibit))
            variant = exhibit.variants[label]
            regularised = "+" in variant["strategy"]
            # The paper's search, by which all of its exhibits here were measured.
            own = {"method": "finite-difference", **run_settings(dataset, regularised)}
            if regularised:
                own["vat_method"] = "finite-difference"
            plain = RunConfig(
                dataset=overrides.data or dataset, strategy=variant["strategy"], **own, rounds=10
            ).resolved()
            config = replace(plain.settings, rounds=rounds, **given, **variant).resolved()
            name = _folder_name(config.settings, plain.settings)
            where = dataset
            if overrides.data is not None:
                kind, _, path = overrides.data.partition(":")
                where += f"={kind}-{Path(path).name}"
            for seed in range(exhibit.first_seed, exhibit.first_seed + seeds):
                folder = out / "runs" / where / name / f"seed_{seed}"
                seeded = replace(config.settings, seed=seed).resolved()
                yield PlannedRun(dataset, label, seeded, folder)


def _unknown_variant(label: str, exhibit: Exhibit) -> str:
    """Their names hold commas: they are quoted, and stand apart by semicolons."""
    known = "; ".join(map(repr, exhibit.variants))
    near = difflib.get_close_matches(label, exhibit.variants, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"variants of {exhibit.title!r} are {known}; got {label!r}{hint}"


def _folder_name(config: RunConfig, plain: RunConfig) -> str:
    """The strategy and the settings in which `config` is not the `plain` run of its data set."""
    usual = asdict(plain)
    different = [
        f"{key}={value}"
        for key, value in asdict(config).items()
        if key not in _NOT_IN_NAME and value != usual[key]
    ]
    return ",".join([config.strategy, *different])
