"""Folders as people have them: links, hidden files, other files. All is used, or counted."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from vaal_ext.experiment.datasets.folder import ImageFolderPool
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.datasets.walk import find_images
from vaal_ext.labelling.images import ImageFiles

Image = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("torchvision.datasets")


def save(root: Path, *names: str) -> None:
    """Images of 8 x 8, each of another grey, under these names; other files hold a text."""
    for grey, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png", ".jfif"):
            kind = "PNG" if path.suffix == ".png" else "JPEG"
            Image.new("L", (8, 8), grey % 256).save(path, format=kind)
        else:
            path.write_text("text")


def found(root: Path) -> tuple[list[str], str]:
    """The names, and what the warning says was not read ("" where there was none)."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        names = find_images(root).names
    assert len(told) <= 1
    text = str(told[0].message) if told else ""
    return names, text.removeprefix(f"{root}: not read: ").partition(" (images are")[0]


def test_all_images_below_are_found(tmp_path):
    save(tmp_path, "b.png", "a.JPG", "x/y/z.jfif", "x/c.png", "folder.png/d.png")
    assert found(tmp_path) == (["a.JPG", "b.png", "folder.png/d.png", "x/c.png", "x/y/z.jfif"], "")


def test_what_is_no_image_is_counted_by_its_extension(tmp_path):
    save(tmp_path, "a.png", "b.gif", "x/c.GIF", "d.heic", "e.avif", "README", "x/f.txt")
    assert found(tmp_path) == (
        ["a.png"],
        ".avif 1, .gif 2, .heic 1, .txt 1, without extension 1",
    )


def test_copies_that_other_programs_made_are_no_samples(tmp_path):
    save(
        tmp_path, "cat/a.png", "cat/._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/cat/._a.png",
        "cat/.ipynb_checkpoints/a-checkpoint.png", ".DS_Store",
    )  # fmt: skip
    assert found(tmp_path) == (["cat/a.png"], "hidden folders 3, hidden images 1")
    with pytest.warns(UserWarning, match="hidden"):
        assert find_images(tmp_path).folders == ["cat"]


def test_a_link_to_the_parent_adds_nothing(tmp_path):
    """As ImageFolder walks it, such a folder holds its only image 41 times."""
    save(tmp_path / "pool", "cat/a.png")
    (tmp_path / "pool/cat/up").symlink_to("..")
    names, told = found(tmp_path / "pool")
    assert (names, told) == (["cat/a.png"], "links to a folder above 1")
    (tmp_path / "pool/cat/again").symlink_to("../../pool")  # with two, a walk never ends
    (tmp_path / "pool/above").symlink_to("../..")
    names, told = found(tmp_path / "pool")
    assert (names, told) == (["cat/a.png"], "links to a folder above 3")


def test_links_are_followed_once_and_files_keep_their_own_name(tmp_path):
    save(tmp_path, "store/cat/a.png", "store/blob", "store/loop/b.png", "pool/z.png")
    pool = tmp_path / "pool"
    Image.new("L", (8, 8)).save(tmp_path / "store/blob", format="PNG")
    (pool / "also").symlink_to(tmp_path / "store/cat")
    (pool / "cat").symlink_to(tmp_path / "store/cat")
    (pool / "blob.png").symlink_to(tmp_path / "store/blob")
    (pool / "second.png").symlink_to(tmp_path / "store/blob")
    (pool / "a.png").symlink_to("z.png")
    (pool / "loop").symlink_to(tmp_path / "store/loop")
    (tmp_path / "store/loop/back").symlink_to("../loop")
    names, told = found(pool)
    assert names == ["also/a.png", "blob.png", "loop/b.png", "z.png"]
    assert told == "links to a folder above 1, links to what is met elsewhere 3"


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to("gone.png")
    assert found(tmp_path) == (["a.png", "b.png"], "")
    with pytest.raises(OSError, match=r"b.png is no readable image"):
        ImageFolderPool(tmp_path)[1]


def test_a_pipe_is_not_waited_for(tmp_path):
    save(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert found(tmp_path) == (["a.png"], "pipes 1")


def test_folders_that_are_none(tmp_path):
    save(tmp_path, "a.txt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="there is no folder"):
        find_images(tmp_path / "a.txt")
    told = pytest.warns(UserWarning, match=r"not read: \.txt 1")
    with told, pytest.raises(FileNotFoundError, match="there is no image in"):
        ImageFolderPool(tmp_path)


def test_class_folders_keep_the_order_of_torchvision(tmp_path):
    """Runs and shards know their samples by the place in this order."""
    save(
        tmp_path, "b/2.png", "b/10.png", "b/x/1.png", "b/x-y/1.png", "b/x/a/3.png", "b-c/1.png",
        "B/1.png", "a/é.png", "a/z.png", "a/Z.png",
    )  # fmt: skip
    folder = datasets.ImageFolder(str(tmp_path))
    expected = [Path(path).relative_to(tmp_path).as_posix() for path, _ in folder.samples]
    assert ImageFolderPool(tmp_path).names == expected
    assert ImageFiles(tmp_path, None).names == sorted(expected)
    save(tmp_path, "0.png")  # what lies beside the folders moves nothing
    assert ImageFolderPool(tmp_path).names == [*expected, "0.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flat_folder_is_a_pool(tmp_path, workers):
    save(tmp_path, *(f"{i}.png" for i in range(5)))
    pool = ImageFolderPool(tmp_path)
    assert pool.names == [f"{i}.png" for i in range(5)]
    (batch,) = DataLoader(pool, batch_size=5, num_workers=workers)
    assert batch.shape == (5, 3, 8, 8)
    assert batch[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_images_beside_class_folders_are_named(tmp_path):
    save(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(9)), "x.png", "y.png")
    with pytest.warns(UserWarning, match=r"2 images lie beside the class folders .* \(x.png\)"):
        data = load_dataset(f"folder:{tmp_path}", progress=False)
    assert sum(map(len, (data.train_y, data.val_y, data.test_y))) == 18
    assert data.num_classes == 2


def test_what_lies_beside_train_and_test_is_named(tmp_path):
    names = [f"{part}/{name}/{i}.png" for part in ("train", "test") for name in "ab" for i in "123"]
    save(tmp_path, *names, "val/a/1.png", ".hidden")
    with pytest.warns(UserWarning, match=r"train and test; 1 more in it are left out \(val\)"):
        data = load_dataset(f"folder:{tmp_path}", progress=False)
    assert len(data.test_y) == 6


def test_labelled_data_needs_classes_with_images(tmp_path):
    save(tmp_path / "flat", "1.png", "2.png")
    with pytest.raises(FileNotFoundError, match=r"no image in a class folder in .*flat/CLASS"):
        load_dataset(f"folder:{tmp_path / 'flat'}", progress=False)
    save(tmp_path / "empty", "a/1.png", "b/1.png")
    (tmp_path / "empty/c").mkdir()
    (tmp_path / "empty/.ipynb_checkpoints").mkdir()
    told = pytest.warns(UserWarning, match="hidden folders 1")
    with told, pytest.raises(OSError, match="no image in the class folders c"):
        load_dataset(f"folder:{tmp_path / 'empty'}", progress=False)
