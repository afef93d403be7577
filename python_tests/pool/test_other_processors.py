"""The tests that compare scores, run once more as on other processors.

Libraries choose other kernels where they are told of fewer instructions, and those sum products in
another order. What a processor that is not here would do, `other_sums` stands in for.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PROCESSORS = {
    "oneDNN without AVX": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL without AVX": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "torch without AVX": {"ATEN_CPU_CAPABILITY": "default"},
    "vaal_ext without AVX": {"VAAL_CPU_ISA": "portable"},
    "all with AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "VAAL_CPU_ISA": "avx2",
    },
    "another order of sums": {"VAAL_TEST_PROCESSOR": "1"},
}
# These start actors and compilers, which take most of the time and add no sum of their own. (With
# ATEN_CPU_CAPABILITY=default torch's own compiler makes code that does not compile; and what it has
# kept in its cache for other instructions gives wrong numbers, hence a cache apart.)
SLOW = (
    "integrations/test_ray.py",
    "cli/test_cli.py::test_score_of_a_compiled_network",
    "pool/test_execution.py::test_a_compiled_model_scores_alike_and_is_given_back",
)


def files():
    return [
        path for path in sorted(TESTS.glob("*/test_*.py")) if "mark.rounding" in path.read_text()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_scores_compare_there_too(settings, tmp_path):
    plugin = ("-p", "other_sums") if "VAAL_TEST_PROCESSOR" in settings else ()
    left_out = [option for name in SLOW for option in ("--deselect", f"{TESTS.name}/{name}")]
    chosen = [
        str(path)
        for path in files()
        if path != Path(__file__) and path.relative_to(TESTS).as_posix() not in SLOW
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "-m"]
    done = subprocess.run(
        [*command, "rounding", *left_out, *chosen],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={
            **os.environ,
            **settings,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "helpers")]),
        },
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
