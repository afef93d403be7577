"""The pool read in batches, each sample with its position."""

import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from vaal_ext.pool.batches import first_samples, pool_batches, pool_size


class Together(Dataset):
    """A dataset that fetches a batch at a time, as some libraries' do."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitems__(self, positions):
        return [self.x[i] for i in positions]


class TooFew(Together):
    def __getitems__(self, positions):
        return super().__getitems__(positions)[1:]


class RunsDry(Dataset):
    """Reads from a stream that ends before the pool does."""

    def __init__(self, together):
        self.stream = iter(X[:7])
        if together:
            self.__getitems__ = lambda positions: [next(self.stream) for _ in positions]

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return next(self.stream)


def halves(items):
    """A collate_fn that changes the input."""
    return default_collate(items)[0] / 2


X = torch.arange(20.0).view(10, 2)
Y = torch.arange(10)


@pytest.mark.parametrize(
    ("pool", "factor"),
    [
        (X, 1),
        (TensorDataset(X), 1),
        (TensorDataset(X, Y), 1),
        (list(X), 1),
        (X.numpy(), 1),
        (X.numpy().astype(">f4"), 1),
        (DataLoader(TensorDataset(X, Y), batch_size=4), 1),
        (DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True), 1),
        (DataLoader(TensorDataset(X), batch_size=4, shuffle=True, drop_last=True), 1),
        (DataLoader(TensorDataset(X, Y), batch_sampler=[[3, 1], [0, 2, 4, 9], [5, 6, 7, 8]]), 1),
        (DataLoader(Together(X), batch_size=3, shuffle=True), 1),
        (DataLoader(TensorDataset(X, Y), batch_size=3, collate_fn=halves, num_workers=1), 0.5),
    ],
)
def test_every_sample_comes_once_with_its_position(pool, factor):
    assert pool_size(pool) == 10
    batches = list(pool_batches(pool, 4))
    assert max(len(x) for x, _ in batches) <= 4
    x, position = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(position.tolist()) == list(range(10))
    assert torch.equal(x, factor * X[position])


def test_a_sampler_may_leave_samples_out_but_not_repeat_them():
    dataset = TensorDataset(X, Y)
    batches = list(pool_batches(DataLoader(dataset, batch_size=2, sampler=[7, 2, 5]), 1))
    assert torch.cat([position for _, position in batches]).tolist() == [7, 2, 5]
    for sampler in ([7, 2, 7], [7, 7]):
        with pytest.raises(ValueError, match="more than once"):
            list(pool_batches(DataLoader(dataset, batch_size=2, sampler=sampler), 1))


class OwnWay(DataLoader):
    def __iter__(self):
        return super().__iter__()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("together", [False, True])
def test_a_pool_does_not_end_with_a_stream_in_it(workers, together):
    if workers and together:
        pytest.skip("a lambda is not pickled")
    with pytest.raises(RuntimeError, match="raised StopIteration for"):
        list(pool_batches(RunsDry(together), 2, workers))


@pytest.mark.parametrize(
    ("pool", "error", "message"),
    [
        (torch.tensor(1.0), ValueError, "scalar"),
        (np.array(1.0), ValueError, "scalar"),
        (np.array([["a"]]), TypeError, "numpy.str_"),
        (3, TypeError, "got int"),
        ({"x": X}, TypeError, "got dict"),
        (Stream(), TypeError, "got Stream"),
        (DataLoader(Stream(), batch_size=2), TypeError, "got Stream"),
        (DataLoader([{"x": x} for x in X]), TypeError, "a dict with the keys 'x'. Say which"),
        (["a", "b"], TypeError, "batch of type list"),
        (DataLoader(TensorDataset(X), batch_size=None), ValueError, "batch_size=None"),
        (OwnWay(TensorDataset(X)), ValueError, "OwnWay iterates in its own way"),
        (DataLoader(X, batch_size=5, collate_fn=torch.cat), ValueError, "5 samples"),
        (np.ma.masked_array(X.numpy(), mask=False), TypeError, "a masked array"),
        ((X, Y), TypeError, "a tuple of 2: give its samples x alone"),
        (pandas.DataFrame(X.numpy()), TypeError, r"a DataFrame: .* pool.to_numpy\('float32'\)"),
        (TooFew(X), ValueError, "__getitems__ gave 3 samples for 4 positions"),
    ],
)
def test_other_pools_are_refused(pool, error, message):
    with pytest.raises(error, match=message):
        list(pool_batches(pool, 4))


@pytest.mark.parametrize(
    ("pool", "factor"),
    [
        (X, 1),
        (X.numpy(), 1),
        (TensorDataset(X, Y), 1),
        (DataLoader(TensorDataset(X, Y), batch_size=3, collate_fn=halves, shuffle=True), 0.5),
    ],
)
def test_the_first_samples_come_apart_from_the_loaders_order(pool, factor):
    assert torch.equal(first_samples(pool, 4), factor * X[:4])


def test_an_array_is_copied_a_batch_at_a_time(tmp_path):
    np.save(tmp_path / "pool.npy", X.numpy())
    mapped = np.load(tmp_path / "pool.npy", mmap_mode="r")
    for x, position in pool_batches(mapped, 4):
        x.add_(1)  # of its own: a read-only map would not let itself be written to
        assert torch.equal(x, X[position] + 1)


class Rows(Dataset):
    """As `datasets` and transformers have them: each sample a dict."""

    def __init__(self, image):
        self.image = image

    def __len__(self):
        return 5

    def __getitem__(self, position):
        return {"label": torch.tensor(position), "id": "x", "pixel_values": self.image(position)}


def as_tensor(i):
    return torch.full((2, 3), float(i))


def as_array(i):
    return np.full((2, 3), float(i), np.float32)


def as_lists(i):
    return [[float(i)] * 3] * 2


@pytest.mark.parametrize("image", [as_tensor, as_array, as_lists])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_dict_is_refused_with_a_way_that_goes(image, workers):
    dataset = Rows(image)
    with pytest.raises(TypeError, match="with the keys 'label', 'id', 'pixel_values'") as caught:
        list(pool_batches(dataset, 2, workers))
    way = str(caught.value).partition("the network gets: ")[2].partition(" is a pool")[0]
    loader = eval(way.removeprefix("torch.utils.data."), {"dataset": dataset, **globals()})
    ((x, position),) = pool_batches(loader, 256)
    assert torch.equal(x, torch.arange(5.0)[:, None, None].expand(5, 2, 3))
    assert position.tolist() == [0, 1, 2, 3, 4]


def test_a_dict_that_a_loader_makes_is_refused_too():
    image_module = pytest.importorskip("PIL.Image")
    dataset = Rows(lambda _: image_module.new("RGB", (4, 3)))  # which torch cannot put together
    with pytest.raises(TypeError, match=r"a sample that is a dict .*row\['pixel_values'\]"):
        first_samples(dataset, 2)
    together = DataLoader(Rows(lambda _: 0), collate_fn=lambda rows: {"ids": torch.ones(len(rows))})
    with pytest.raises(TypeError, match=r"a batch that is a dict with the keys 'ids'"):
        first_samples(together, 2)
