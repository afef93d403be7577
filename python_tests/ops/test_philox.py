"""The counter-based start vectors: the generator's published vectors, and what they are for."""

import subprocess
from pathlib import Path

import pytest
import torch

from vaal_ext import ops, reference

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# Random123's kat_vectors for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip

PROGRAM = """
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include "math/philox.h"
struct Scalar {
  static void mul_wide(uint32_t a, uint32_t b, uint32_t& high, uint32_t& low) {
    const uint64_t product = uint64_t(a) * b;
    high = uint32_t(product >> 32);
    low = uint32_t(product);
  }
};
int main(int, char** argv) {
  uint32_t in[6];
  for (int i = 0; i < 6; ++i) in[i] = uint32_t(std::strtoul(argv[i + 1], nullptr, 16));
  const auto out = vaal::philox4x32_10<Scalar>(
      vaal::PhiloxBlock<uint32_t>{{in[0], in[1], in[2], in[3]}}, in[4], in[5]);
  std::printf("%08x %08x %08x %08x", out.word[0], out.word[1], out.word[2], out.word[3]);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The kernels' own header, compiled for one word at a time."""
    folder = tmp_path_factory.mktemp("philox")
    (folder / "main.cpp").write_text(PROGRAM)
    command = ["c++", "-std=c++20", "-Wno-unknown-pragmas", f"-I{CSRC}", "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "main"


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(program, counter, key, expected):
    arguments = [str(program), *counter.split(), *key.split()]
    assert subprocess.run(arguments, capture_output=True, text=True).stdout == expected
    words = reference.philox4x32(
        [torch.tensor(int(w, 16)) for w in counter.split()], [int(w, 16) for w in key.split()]
    )
    assert " ".join(f"{int(w):08x}" for w in words) == expected


def start(x, index, seed=7):
    return ops.random_perturb(x, 1.0, seed=seed, sample_index=index)


@pytest.mark.parametrize("size", [1, 2, 5, 784, 3072, 150528])
def test_fused_normals_are_the_reference_normals(size, kernels):
    """1e-6: float32 normals of at most 5.8, divided by their norm, added to zero."""
    x, index = torch.zeros(3, size), torch.tensor([0, 1, 2**40 + 3])
    expected = reference.random_perturb(x.double(), 1.0, seed=7, sample_index=index)
    torch.testing.assert_close(start(x, index).double(), expected, rtol=0, atol=1e-6)
    wide = start(x.double(), index)
    torch.testing.assert_close(wide, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", [0, -1, 2**62, -(2**63)])
def test_every_seed_of_64_bits(seed, kernels):
    x, index = torch.zeros(2, 10, dtype=torch.float64), torch.tensor([5, 6])
    expected = reference.random_perturb(x, 1.0, seed=seed, sample_index=index)
    torch.testing.assert_close(start(x, index, seed), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 5, 63, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_short_sample_starts_as_it_does_alone(size, dtype, kernels):
    """On the CPU short samples are drawn in groups of 16."""
    x = torch.randn(37, size).to(dtype)
    index = torch.randint(-(2**62), 2**62, (2 * len(x),))[::2]
    alone = [start(x[i : i + 1], index[i : i + 1]) for i in range(len(x))]
    assert torch.equal(start(x, index), torch.cat(alone))
    expected = reference.random_perturb(torch.zeros(37, size), 1.0, seed=7, sample_index=index)
    found = start(torch.zeros(37, size), index)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_sample_starts_the_same_in_every_batch(kernels):
    x, index = torch.randn(100, 3, 8, 8), torch.arange(100)
    whole = start(x, index)
    for size in (1, 7, 64):
        parts = [start(x[i : i + size], index[i : i + size]) for i in range(0, 100, size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(100)
    assert torch.equal(start(x[order], index[order]), whole[order])
    assert torch.equal(start(x.to(memory_format=torch.channels_last), index), whole)


def test_seeds_and_samples_differ_and_normals_are_normal(kernels):
    x = torch.zeros(4000, 64, dtype=torch.float64)
    directions = start(x, torch.arange(4000))
    assert not torch.allclose(directions, start(x, torch.arange(4000), seed=8))
    # 256,000 numbers: the mean of the coordinates is within 5 standard errors of 0, and the mean
    # product of neighbouring samples too.
    assert abs(directions.mean().item()) < 5 / 8 / 256000**0.5
    assert abs((directions[1:] * directions[:-1]).sum(1).mean().item()) < 5 / (8 * 4000**0.5)
    fourth = (directions**4).mean().item() * 64**2
    assert abs(fourth - 3 * 64 / 66) < 0.1  # kurtosis of a coordinate of a uniform direction
