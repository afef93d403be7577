"""Every public name says what it takes, gives and refuses: shapes, dtypes, errors.

Public is what a module's ``__all__`` lists, and the public methods of the classes in it. The source
is read, not imported, so that the adapters of libraries that are not installed are held to it too.
"""

import ast
import re
from pathlib import Path

import pytest

import vaal_ext
from vaal_ext import ops, reference

PACKAGE = Path(vaal_ext.__file__).parent

ARRAYS = re.compile(r"\b(Tensor|ndarray)\b")
SHAPE = re.compile(r"\[[A-Za-z0-9_.,*+() -]+\]|\b(scalar|like x|any shape)\b")
DTYPE = re.compile(r"\b(u?int\d*|float\d*|floating|bool|dtype|logits|like x)\b|\bA ?\[")
ERRORS = re.compile(r"Raises:|Error\b|Exception\b|\berrors\b")
# What is said elsewhere is not said again: "see :func:`select`", "arguments as for :class:`...`".
ELSEWHERE = re.compile(r"\b(?:see|as|those of)\b[^:]{0,40}:\w+:`[~.]?([\w.]+)`", re.IGNORECASE)


def exported(tree):
    """The names in a module's __all__, as far as they are written out."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return {e.value for e in node.value.elts if isinstance(e, ast.Constant)}
    return set()


def documented(body):
    """{name: node} of the functions and classes in a body; of overloads the one with the code."""
    return {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def public_names(tree):
    """Yields (name, node) of what a module exports, and of the public methods of its classes.

    A method that overrides one of a class in the same module has its docstring there.
    """
    module = documented(tree.body)
    for name in sorted(exported(tree) & module.keys()):
        node = module[name]
        yield name, node
        if isinstance(node, ast.ClassDef):
            above = {m for base in bases(node, module) for m in documented(base.body)}
            for method, function in documented(node.body).items():
                if not method.startswith("_") and method not in above:
                    yield f"{name}.{method}", function


def bases(node, module):
    """The classes of the same module that a class descends from."""
    for base in node.bases:
        if getattr(base, "id", "") in module:
            yield module[base.id]
            yield from bases(module[base.id], module)


def types(node):
    """The annotations of what a function takes and gives, or a class is made of."""
    if isinstance(node, ast.ClassDef):
        fields = [ast.unparse(n.annotation) for n in node.body if isinstance(n, ast.AnnAssign)]
        return " ".join([*fields, *(types(m) for m in documented(node.body).values() if made(m))])
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return " ".join(ast.unparse(n) for n in (*(a.annotation for a in arguments), node.returns) if n)


def made(node):
    return node.name in ("__init__", "__post_init__")


def refuses(node):
    """Whether the function itself, or the making of the class, raises on a bad argument."""
    if isinstance(node, ast.ClassDef):
        return any(refuses(m) for m in documented(node.body).values() if made(m))
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) and part.exc is not None:
            return True
        called = getattr(part.func, "id", "") if isinstance(part, ast.Call) else ""
        if called.startswith(("require_", "check_")):
            return True
    return False


def what_is_missing(node):
    text = ast.get_docstring(node)
    if text is None:
        return ["a docstring"]
    if isinstance(node, ast.ClassDef):
        text += "".join(
            ast.get_docstring(m) or "" for m in documented(node.body).values() if made(m)
        )
    if ELSEWHERE.search(text):
        return []
    arrays = ARRAYS.search(types(node))
    missing = ["shapes"] if arrays and not SHAPE.search(text) else []
    missing += ["dtypes"] if arrays and not DTYPE.search(text) else []
    return missing + (["errors"] if refuses(node) and not ERRORS.search(text) else [])


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    has_public = any(not name.startswith("_") for name in documented(tree.body))
    if has_public and not path.stem.startswith("_"):
        assert exported(tree), "a module that defines public names lists them in __all__"
    missing = {name: what_is_missing(node) for name, node in public_names(tree)}
    assert {name: what for name, what in missing.items() if what} == {}


def test_no_docstring_points_nowhere():
    """What a docstring refers to in vaal_ext is there."""
    trees = [ast.parse(path.read_text()) for path in FILES]
    known = {node.name for tree in trees for node in ast.walk(tree) if hasattr(node, "name")}
    known |= {name for tree in trees for name in exported(tree)}
    known |= {path.stem for path in FILES} | {path.parent.name for path in FILES}
    known |= {
        target.id
        for tree in trees
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [])
        if isinstance(target, ast.Name)
    }
    for path in FILES:
        for target in re.findall(
            r":(?:func|class|meth|data|mod):`[~.]?([\w.]+)`", path.read_text()
        ):
            assert target.rpartition(".")[2] in known, f"{path}: {target}"


def test_the_packages_own_names_are_among_them():
    """What `vaal_ext` and `vaal_ext.ops` export is defined in modules that export it too."""
    names = {n for path in FILES for n in exported(ast.parse(path.read_text()))}
    assert set(vaal_ext.__all__) - {"__version__", "ops", "reference"} <= names
    modules = [p for room in ("ops", "reference") for p in (PACKAGE / room).glob("[a-z]*.py")]
    functions = {name for p in modules for name in documented(ast.parse(p.read_text()).body)}
    assert {*ops.__all__, *reference.__all__} <= functions


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("def f(x): pass", ["a docstring"]),
        ("def f(x: Tensor): 'x, squared.'", ["shapes", "dtypes"]),
        ("def f(x: Tensor): 'x [B, ...], squared.'", ["dtypes"]),
        ("def f(x: Tensor): 'x floating, squared.'", ["shapes"]),
        ("def f(n: int):\n 'n, squared.'\n raise ValueError(n)", ["errors"]),
        ("def f(n: int):\n 'n, squared.'\n require_int('n', n, 0)", ["errors"]),
        ("class C:\n 'A C.'\n x: np.ndarray", ["shapes", "dtypes"]),
        ("class C:\n 'A C.'\n def __init__(self): raise ValueError", ["errors"]),
        ("def f(x: Tensor): 'x float32 [B], squared.'", []),
        ("def f(x: Tensor): 'Squared; for x see :func:`g`.'", []),
    ],
)
def test_the_check_finds_what_is_missing(source, missing):
    assert what_is_missing(ast.parse(source).body[0]) == missing
