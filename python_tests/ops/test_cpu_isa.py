"""The narrower instruction sets, which this processor would not choose by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE_CALL = "import torch; from vaal_ext import ops; ops.posterior_summary(torch.zeros(1, 2))"


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_ops_are_right_on_every_instruction_set(isa):
    # The set is chosen once for the process, so each has its own. Few lanes are the hard case for
    # sums over many classes; without fused multiplication exp reduces its argument in two steps.
    environment = {**os.environ, "VAAL_CPU_ISA": isa}
    probe = subprocess.run(
        [sys.executable, "-c", ONE_CALL], env=environment, capture_output=True, text=True
    )
    if "is not an instruction set of this processor" in probe.stderr:
        pytest.skip(f"no {isa} here")
    names = ("test_ops.py", "test_ops_accuracy.py", "test_deepfool_step.py")
    tests = [str(HERE / name) for name in names]
    chosen = "cpu and (values or perturb or summary) or float32_is_right and (32000 or 10-)"
    chosen += " or float32_of_a_posterior"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
