"""Files that are read back with a flipped bit, or made to take memory: refused in one line."""

from __future__ import annotations

import io
import json
import resource
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refuse, run_arguments, score_arguments
from damage import flip, flipped
from killed_runs import assert_same
from labelling_project import begin, fill_in, go_to_images, step
from torch import nn

from vaal_ext.cli.app import main
from vaal_ext.files import reading
from vaal_ext.files.reading import load_npz, load_torch, map_npy
from vaal_ext.network.user_model import load_model
from vaal_ext.pool.shards import read_shards

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def bits(value):
    """What two equal contents of a file have in common, NaN or not."""
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    array = np.asarray(value)
    return array.dtype, array.shape, array.tobytes()


def write(kind: str) -> Path:
    path = Path(f"whole{kind}")
    if kind == ".pt":
        torch.save({"w": torch.from_numpy(X), "n": torch.arange(4)}, path)
    elif kind == ".npy":
        np.save(path, X)
    else:
        save = np.savez_compressed if kind == ".deflated.npz" else np.savez
        save(path, x=X, y=np.arange(6), empty=np.zeros(0))
    return path


@pytest.mark.parametrize(
    ("kind", "load", "least"),
    [
        (".pt", load_torch, 0.4),  # much of it is padding
        (".npz", load_npz, 0.7),
        (".deflated.npz", load_npz, 0.6),
    ],
)
def test_any_flipped_bit_is_refused_or_says_nothing(kind, load, least, place):
    path = write(kind)
    whole = bits(load(path))
    count, refusals = len(path.read_bytes()), []
    for at in flipped(path, count):  # a bit of every byte
        try:
            assert bits(load(path)) == whole, at
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > least * count
    assert not [text for text in refusals if "\n" in text or not text]


def test_any_flipped_bit_of_an_npys_header_is_refused_or_says_nothing(place):
    """The format has no checksum: of the numbers themselves nothing proves anything."""
    path = write(".npy")
    header = path.stat().st_size - X.nbytes
    for bit in range(8 * header):
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        Path("a.npy").write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = map_npy("a.npy")
        except ValueError:
            continue
        # Of another byte order load_dataset says that it is not float32.
        assert found.dtype == np.dtype(">f4") or bits(found) == bits(X), bit


def test_a_directory_entry_is_not_read_as_an_empty_tensor(place):
    """Torch takes memory as it finds it for the content of a folder; zipfile reads the file."""
    path = write(".pt")
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"whole/data/0"))
    assert content[entry + 38] == 0
    path.write_bytes(content[: entry + 38] + b"\x10" + content[entry + 39 :])
    with pytest.raises(ValueError, match="table of contents is damaged"):
        load_torch(path)


def test_files_of_torch_without_checksums_are_read(place):
    state = {"w": torch.from_numpy(X)}
    torch.save(state, "old.pt", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, "quick.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    for path in ("old.pt", "quick.pt"):
        assert torch.equal(load_torch(path)["w"], state["w"])


def test_a_refused_pickle_is_not_answered_with_how_to_load_it(place, capfd):
    torch.save({"net": nn.Linear(2, 2)}, "net.pt")
    error = refuse(place, capfd, score_arguments(), "holds more than tensors, numbers and text")
    assert "weights_only" not in error
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), "net.pt")
    assert "weights_only" not in refuse(place, capfd, score_arguments(), "is not a readable")


def test_weights_must_be_finite_and_masks_need_not(place, capfd):
    (place / "masked.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    net = nn.Linear(2, 2)\n"
        "    net.register_buffer('mask', torch.full((2,), -torch.inf))\n    return net\n"
    )
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2), "mask": torch.full((2,), -np.inf)}
    torch.save(state, "masked.pt")
    network, _ = load_model("masked:net", Path("masked.pt"))
    assert torch.isinf(network.mask).all()
    state = torch.load("net.pt", weights_only=True)
    state["1.bias"][2] = torch.nan
    torch.save(state, "net.pt")
    refuse(place, capfd, score_arguments(), "1.bias holds NaN or an infinity")


def test_a_flipped_weight_is_refused(place, capfd):
    """A weight became -1e37, and the scores were those of another network."""
    content = Path("net.pt").read_bytes()
    weight = torch.load("net.pt", weights_only=True)["1.weight"].numpy().tobytes()
    flip(Path("net.pt"), content.index(weight) + 3)
    refuse(
        place, capfd, score_arguments(), "net.pt is not a readable state dict: its part net/data"
    )


def npz_of(header: str, data: bytes) -> bytes:
    """An .npz of one array x, with a header of a test's choice."""
    made = io.BytesIO()
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return made.getvalue()


def test_arrays_larger_than_their_file_take_no_memory(place, capfd):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 2), }"
    arguments = score_arguments()
    Path("pool.npz").write_bytes(npz_of(header % 10**13, bytes(80)))
    refuse(place, capfd, arguments, "says float32 [10000000000000, 2], which takes 80000000000")
    Path("pool.npz").write_bytes(npz_of(header % 10**30, bytes(80)))
    refuse(place, capfd, arguments, "pool.npz is not a complete .npz")
    Path("pool.npz").write_bytes(npz_of(header % -3, bytes(80)))
    refuse(place, capfd, arguments, "says float32 [-3, 2]")


def test_an_npz_that_unpacks_to_more_than_memory_is_refused_before(place, capfd, monkeypatch):
    np.savez_compressed("pool.npz", x=np.zeros((64, 3, 4 << 10), np.uint8))
    assert Path("pool.npz").stat().st_size < 4096
    monkeypatch.setattr(reading, "_array", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(reading, "available_memory", lambda _: 700_000)
    refuse(place, capfd, score_arguments(), "it takes 0.0 GiB of memory, 0.0 GiB are free")


def test_bytes_that_are_too_many_as_numbers_are_refused_before(place, capfd, monkeypatch):
    np.savez_compressed("pool.npz", x=np.zeros((64, 3, 4 << 10), np.uint8))
    monkeypatch.setattr(reading, "available_memory", lambda _: 3 << 20)
    refuse(place, capfd, score_arguments(), "pool.npz: x is too large, it takes 0.0 GiB of memory")


@pytest.mark.parametrize(
    ("offsets", "value"),
    [((8, 10), 99), ((6, 8), 1)],  # in the two headers of a zip's entry: compression; encrypted
)
def test_npz_files_that_zipfile_cannot_unpack(offsets, value, place, capfd):
    content = bytearray(Path("pool.npz").read_bytes())
    for start, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), offsets, strict=True):
        content[content.index(start) + offset] = value
    Path("pool.npz").write_bytes(content)
    refuse(place, capfd, score_arguments(), "pool.npz is not a complete .npz of plain arrays")


def test_json_nested_without_end(place, capfd):
    assert main(score_arguments(out="shards", **{"shard-size": "8"})) == 0
    deep = "[" * 100_000
    Path("shards/.checksums.json").unlink()
    Path("shards/manifest.json").write_text(deep)
    select = ["select", "--scores", "shards", "--n", "2", "--out", "q.csv"]
    refuse(place, capfd, select, "manifest.json is no manifest of scores: it is nested too deeply")


@pytest.mark.slow
def test_json_nested_without_end_in_a_project(tmp_path, monkeypatch, capfd):
    place = go_to_images(tmp_path, monkeypatch)
    begin()
    Path("deep.json").write_text('[{"id": ' * 100_000)
    label = ["label", "--project", "project", "deep.json"]
    refuse(place, capfd, label, "is not what Label Studio exports as JSON")
    Path("project/config.json").write_text("[" * 100_000)
    refuse(place, capfd, ["query", "--project", "project"], "config.json: it is nested too deeply")


def test_a_damaged_shard_is_scored_again(place, capfd):
    arguments = score_arguments(out="shards", **{"shard-size": "8", "batch-size": "4"})
    assert main(arguments) == 0
    whole = {path.name: path.read_bytes() for path in Path("shards").glob("shard_*")}
    shard = Path("shards/shard_00002.npz")
    for place_in_it in (200, len(whole[shard.name]) // 2, -30):
        flip(shard, place_in_it)
        with pytest.raises(ValueError, match=r"shard_00002.* Score once more with the same"):
            read_shards("shards")
        capfd.readouterr()
        assert main(arguments) == 0
        said = capfd.readouterr()
        assert "8 samples scored" in said.out
        (warned,) = (line for line in said.err.splitlines() if line.startswith("warning"))
        assert "shard_00002.npz" in warned
        assert {path.name: path.read_bytes() for path in Path("shards").glob("shard_*")} == whole
    shutil.copy("shards/shard_00001.npz", shard)  # whole, and of other samples
    assert main(arguments) == 0
    assert shard.read_bytes() == whole[shard.name]


def test_shards_of_another_index_than_the_manifests(place, capfd):
    assert main(score_arguments(out="shards", **{"shard-size": "20"})) == 0
    manifest = Path("shards/manifest.json")
    found = json.loads(manifest.read_text())
    found["identity"]["sample_index"] = "0" * 64
    Path("shards/.checksums.json").unlink()
    manifest.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="shards of other samples than its manifest says"):
        read_shards("shards")


def test_a_projects_tables_are_proved(tmp_path, monkeypatch, capfd):
    """A label that turns into another class would be trained on."""
    place = go_to_images(tmp_path, monkeypatch)
    begin(classes="dark,light,lighu")
    step("label", fill_in(1))
    labels = Path("project/labels.csv")
    text = labels.read_text()
    assert ",light," in text
    labels.write_text(text.replace(",light,", ",lighu,", 1))  # a bit
    train = ["train", "--project", "project"]
    error = refuse(place, capfd, train, "labels.csv is damaged or was edited")
    assert "delete project/.checksums.json" in error
    Path("project/.checksums.json").unlink()  # a project of an earlier version is read
    assert main(train) == 0


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(place, capfd):
    """A limit on the size of files, as the disk's: state.pt is the only one above it, and above
    what a file keeps back before it writes, so that it is torch's own writer that meets it."""
    assert main(run_arguments(out="whole")) == 0
    state = (place / "whole" / "state.pt").stat().st_size
    others = max(p.stat().st_size for p in (place / "whole").iterdir() if p.name != "state.pt")
    limit = (state + others) // 2
    assert max(others, io.DEFAULT_BUFFER_SIZE) < limit < state
    capfd.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        status = main(run_arguments())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert capfd.readouterr().err == "vaal-ext: cannot write run/state.pt: File too large\n"
    assert not list(Path("run").glob(".*.tmp"))
    assert main(run_arguments()) == 0
    assert_same(place / "whole", place / "run")
