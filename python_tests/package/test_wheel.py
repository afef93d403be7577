"""The wheel: built once, then tried under several versions of torch, each in an environment of its
own and with no compiler on PATH.

Marked `wheel`, which plain pytest leaves out, because it installs other versions of torch:
``pytest -m wheel``, or ``make test``.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from exclusive import exclusive

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).resolve().parents[2]
OTHER_TORCHES = ("2.11.0", "2.13.0")  # the oldest that serves, and one between it and the pinned
SMOKE = (
    "ops/test_ops.py",
    "perturbation/test_roughness.py",
    "strategies/test_selection.py",
    "perturbation/test_vat.py",
)
PACKAGES = ("torch", "torchvision")  # whose pins in constraints.txt are for the torch in use


def run(*command, cwd, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Compiles what is not up to date in build/ and packs it."""
    out = tmp_path_factory.mktemp("wheel")
    setup = (sys.executable, "setup.py", "-q", "build", "-b", str(out / "build"))
    with exclusive(ROOT / "build" / "tests.lock"):  # setup.py writes the package's egg-info
        run(*setup, "bdist_wheel", "-d", str(out), cwd=ROOT)
    (path,) = out.glob("*.whl")
    return path


def test_it_holds_the_package_and_its_libraries(wheel):
    package = ROOT / "vaal_ext"
    wanted = [*package.rglob("*.py"), *package.glob("*.pyi"), package / "py.typed"]
    wanted += [package / "report" / name for name in ("page.css", "page.js")]
    wanted += [package / "_ops_cpu.so", package / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"]
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    names.discard("vaal_ext/_ops_cuda.so")  # where there was an nvcc
    assert names == {str(path.relative_to(ROOT)) for path in wanted}


def environment_with(version, wheel, folder):
    """The interpreter of a new environment with the wheel and that torch; None: the one in use."""
    venv.create(folder, with_pip=False)
    python = str(folder / "bin" / "python")
    # Not compiled to bytecode: of torch's thousands of files a few are imported.
    install = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile")
    if version is None:
        run(*install, "--no-deps", str(wheel), cwd=folder)
        # Behind the environment's own packages; the .pth files in there (editable installs) are not
        # followed.
        borrowed = Path(run(python, "-c", _SITE, cwd=folder).strip()) / "borrowed.pth"
        borrowed.write_text(sysconfig.get_path("purelib"))
        return python
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(p for p in pins if p.partition("==")[0] not in PACKAGES))
    packages = (f"torch=={version}", str(wheel), "pytest", "hypothesis")
    run(*install, "-c", str(constraints), *packages, cwd=folder)
    return python


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
_WHERE = "import torch, vaal_ext; print(torch.__version__); print(vaal_ext.__file__)"


@pytest.mark.parametrize("version", [None, *OTHER_TORCHES], ids=lambda v: v or "torch in use")
def test_it_runs_under(version, wheel, tmp_path):
    folder = tmp_path / "environment"
    python = environment_with(version, wheel, folder)
    only = str(folder / "bin")  # a PATH without a compiler
    found, file = run(python, "-c", _WHERE, cwd=tmp_path, PATH=only).splitlines()
    assert found.partition("+")[0] == (version or torch.__version__.partition("+")[0])
    assert Path(file).is_relative_to(folder)
    assert "load, for C" in run(f"{only}/vaal-ext", "info", cwd=tmp_path, PATH=only)
    tests = [str(ROOT / "python_tests" / name) for name in SMOKE]
    pytest_options = ("-q", "-p", "no:cacheprovider")
    said = run(python, "-m", "pytest", *pytest_options, *tests, cwd=tmp_path, PATH=only)
    print(said.strip().splitlines()[-1])
    shutil.rmtree(folder)  # gigabytes
