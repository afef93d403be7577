"""Atomic files, the file of pool scores, and the table that fills."""

import os
import pickle
import stat
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaal_ext.files.atomic import write_atomically
from vaal_ext.pool.score_table import ScoreTable
from vaal_ext.pool.scores import PoolScores

# --- atomic files -----------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "content"), [("wb", b"\x00\r\n"), ("w", "é\n\r\n")])
def test_atomic_write_appears_at_the_end_with_the_usual_rights(tmp_path, mode, content):
    path = tmp_path / ("x" * 251 + ".bin")  # the longest name that a file may have
    path.write_bytes(b"old")
    with write_atomically(path, mode) as file:
        file.write(content)
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == (content if mode == "wb" else content.encode())
    assert os.listdir(tmp_path) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def half_written(path, error):
    with write_atomically(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [None, b"old"])
def test_atomic_write_leaves_nothing_behind_on_error(tmp_path, error, existing):
    path = tmp_path / "file"
    if existing is not None:
        path.write_bytes(existing)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(type(error)):
        half_written(path, error)
    assert sorted(os.listdir(tmp_path)) == before
    assert existing is None or path.read_bytes() == existing


def test_atomic_write_on_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), write_atomically(tmp_path / "file") as file:
        file.write(b"all")
    assert os.listdir(tmp_path) == []


def test_atomic_write_refuses_what_it_cannot_replace(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), write_atomically(tmp_path):
        pytest.fail("the block must not run")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular file"), write_atomically(tmp_path / "fifo"):
        pytest.fail("the block must not run")
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "no" / "file"):
        pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="mode"), write_atomically(tmp_path / "file", "a"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["fifo"]


def test_atomic_write_goes_through_a_symbolic_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with write_atomically(tmp_path / "link", "w") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


# --- the file of scores -----------------------------------------------------------------------


def some_scores(n=5, classes=3):
    return PoolScores(
        index=np.arange(n) * 7,
        ldr=np.linspace(0, 1, n, dtype=np.float32),
        pseudo_label=np.arange(n) % classes,
        entropy=np.full(n, np.nan, dtype=np.float32),
        margin=np.full(n, 0.5, dtype=np.float32),
        posterior_mean=np.full(classes, 1 / classes),
    )


def arrays_of(scores):
    names = ("index", "ldr", "pseudo_label", "entropy", "margin", "posterior_mean")
    return {name: getattr(scores, name) for name in names}


@pytest.mark.parametrize("n", [0, 5])
def test_scores_come_back_from_the_file_bit_for_bit(tmp_path, n):
    scores = some_scores(n)
    scores.save(tmp_path / "scores.npz")
    loaded = PoolScores.load(str(tmp_path / "scores.npz"))
    assert (loaded.num_samples, loaded.num_classes) == (n, 3)
    for name, array in arrays_of(scores).items():
        got = getattr(loaded, name)
        assert got.dtype == array.dtype
        assert got.tobytes() == array.tobytes()
    assert os.listdir(tmp_path) == ["scores.npz"]
    # The column that DeepFool adds is in the file where it ran, and only there.
    with np.load(tmp_path / "scores.npz") as archive:
        assert sorted(archive.files) == sorted(arrays_of(scores))
    norm = np.arange(n, dtype=np.float32)
    replace(scores, perturbation_norm=norm).save(tmp_path / "scores.npz")
    assert PoolScores.load(tmp_path / "scores.npz").perturbation_norm.tolist() == norm.tolist()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ldr": np.zeros(4, np.float32)}, ValueError, "4 entries where index has 5"),
        ({"margin": np.zeros(5)}, TypeError, "margin must be a float32 array, got float64"),
        ({"entropy": [0.0] * 5}, TypeError, "entropy must be a float32 array, got list"),
        ({"perturbation_norm": np.zeros(4, np.float32)}, ValueError, "4 entries where index has 5"),
        ({"perturbation_norm": np.zeros(5)}, TypeError, "perturbation_norm must be a float32"),
        ({"index": np.zeros((5, 1), np.int64)}, ValueError, "1-D"),
        ({"pseudo_label": np.array([0, 1, 2, 3, 0])}, ValueError, "-1..2"),
        ({"pseudo_label": np.array([0, 1, -2, 1, 0])}, ValueError, "-1..2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, error, message):
    arrays = arrays_of(some_scores()) | change
    with pytest.raises(error, match=message):
        PoolScores(**arrays)
    np.savez(tmp_path / "scores.npz", **arrays)
    if not isinstance(change.get("entropy"), list):
        with pytest.raises(ValueError, match=message):
            PoolScores.load(tmp_path / "scores.npz")


class Bomb:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle from the file was loaded",)


def test_damaged_files_are_refused_and_pickles_never_loaded(tmp_path):
    path = tmp_path / "scores.npz"
    some_scores().save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"scores\.npz is no readable file of pool scores"):
            PoolScores.load(path)
    at = whole.index(b"ldr.npy") + 150  # in the data: only the checksum can tell
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match="is no readable file"):
        PoolScores.load(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"no \.npz"):
        PoolScores.load(path)
    np.savez(path, **(arrays_of(some_scores()) | {"ldr": np.array([Bomb()] * 5, dtype=object)}))
    with pytest.raises(ValueError, match="pickled objects, which are never loaded"):
        PoolScores.load(path)


@pytest.mark.parametrize("name", list(arrays_of(some_scores())))
def test_a_missing_array_is_named(tmp_path, name):
    arrays = arrays_of(some_scores())
    del arrays[name]
    np.savez(tmp_path / "scores.npz", **arrays)
    with pytest.raises(ValueError, match=f"lacks {name}"):
        PoolScores.load(tmp_path / "scores.npz")


def test_a_file_that_cannot_be_opened_stays_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        PoolScores.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        PoolScores.load(tmp_path)


def test_they_show_in_a_line():
    scores = some_scores()
    assert repr(scores) == "PoolScores(5 samples, 3 classes, ldr 0 to 1, median 0.5)"
    assert len(scores) == 5
    ldr = np.array([np.nan, 1, 2, 0.25, np.nan], np.float32)
    some = replace(scores, ldr=ldr, perturbation_norm=np.ones(5, np.float32))
    assert repr(some) == (
        "PoolScores(5 samples, 3 classes, ldr 0.25 to 2, median 1, 2 without ldr, "
        "with perturbation_norm)"
    )
    assert repr(some_scores(0)) == "PoolScores(0 samples, 3 classes)"


def test_the_columns_in_pandas(monkeypatch):
    scores = replace(some_scores(), name=np.array(list("abcde")))
    pandas = pytest.importorskip("pandas")
    table = scores.to_pandas()
    columns = ["index", "ldr", "pseudo_label", "entropy", "margin", "name"]
    assert list(table.columns) == columns
    for name in columns[:-1]:
        assert table[name].to_numpy().dtype == getattr(scores, name).dtype
    pandas.testing.assert_frame_equal(
        table.sort_values("ldr", ascending=False).head(1),
        pandas.DataFrame({name: getattr(scores, name)[[4]] for name in columns}, index=[4]),
    )
    table["ldr"] += 1
    assert scores.ldr[0] == 0  # a copy
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas: pip install pandas"):
        scores.to_pandas()


# --- the table that fills ---------------------------------------------------------------------


def test_the_table_sorts_what_comes_in_and_drops_what_does_not():
    table = ScoreTable(np.arange(6) * 10)
    names = ("pseudo_label", "entropy", "margin", "value", "failed", "curvature")
    rows = np.array([[2, 0], [0.5, 0.25], [0.75, 0.5], [3, 4], [0, 1], [0.4, 0.2]])
    rows = dict(zip(names, rows, strict=True))
    table.enter(np.array([4, 1]), rows, torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64))
    rows = np.array([[-1, 1], [np.nan, 1], [np.nan, 0], [np.nan, 0], [0, 1], [np.nan, 0.3]])
    rows = dict(zip(names, rows, strict=True))
    table.enter(np.array([0, 5]), rows, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    scores = table.scores()
    assert table.failed == 2
    np.testing.assert_array_equal(table.curvature, np.float32([np.nan, 0.2, 0.4, 0.3]))
    assert scores.index.tolist() == [0, 10, 40, 50]
    assert scores.pseudo_label.tolist() == [-1, 0, 2, 1]
    np.testing.assert_array_equal(scores.ldr, np.float32([np.nan, 4, 3, 0]))
    np.testing.assert_array_equal(scores.entropy, np.float32([np.nan, 0.25, 0.5, 1]))
    np.testing.assert_array_equal(scores.margin, np.float32([np.nan, 0.5, 0.75, 0]))
    assert scores.posterior_mean.tolist() == [1 / 3, 1.5 / 3, 0.5 / 3]  # of the three finite ones
