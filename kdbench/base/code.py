"""Digests of code: of a file and the local modules it imports, and of the rooms that move numbers.

Comments, layout and docstrings do not count, and neither does the version of Python that parses.
"""

import ast
import hashlib
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

ROOMS = ("data", "models", "variants", "head", "train", "generate", "score")
"""The packages of kdbench that move a trained or scored number."""
OBJECTIVES = "kdbench.objectives"

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = {"site-packages", "dist-packages"}


@cache
def rooms_digest() -> str:
    """Twelve hexadecimal digits of all code in the rooms that move numbers."""
    files = [path for room in ROOMS for path in (_PACKAGE / room).rglob("*.py")]
    return _digest({path.relative_to(_PACKAGE).as_posix(): path for path in files})


@cache
def rooms_bytes() -> str:
    """Digest of the same files byte by byte, which takes a hundredth of the time."""
    files = sorted(path for room in ROOMS for path in (_PACKAGE / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def code_digest(*roots: Path) -> str:
    """Twelve hexadecimal digits of some files and of the local modules that they import.

    A module is local if it is part of a root's own package, or neither installed nor Python's own.
    What modules import counts too, within functions as well. kdbench's rooms do not: they have
    digests of their own.
    """
    loaded = {
        Path(file): name
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str)
    }
    found: dict[str, Path] = {}
    for number, root in enumerate(dict.fromkeys(roots)):
        name = loaded.get(root, "")
        package = name if root.stem == "__init__" else name.rpartition(".")[0]
        own = OBJECTIVES if package.startswith(OBJECTIVES) else name.partition(".")[0]
        # A file's own name does not count: a renamed plugin is the same code.
        waiting = [(f"root {number}", root, package)]
        while waiting:
            key, path, package = waiting.pop()
            if (path in roots and path != root) or path in found.values():
                continue
            found[key] = path
            for module in _imported(_content(path), package):
                place = _place(module)
                if place is not None and _is_local(module, place, own):
                    inside = module if place.stem == "__init__" else module.rpartition(".")[0]
                    waiting.append((module, place, inside))
    return _digest(found)


def _digest(files: dict[str, Path]) -> str:
    parts = [f"{name} {_content_digest(_content(files[name]))}" for name in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _content(path: Path) -> bytes:
    """Of a file, or of the cell of a notebook that goes by its name."""
    return path.read_bytes() if path.is_file() else "".join(linecache.getlines(str(path))).encode()


@lru_cache(maxsize=1024)
def _content_digest(content: bytes) -> str:
    """Of what a file means to Python; of its bytes where it is no source."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return hashlib.sha256(content).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [item for item in node.body if not _is_docstring(item)]
    return hashlib.sha256(_written(tree).encode()).hexdigest()


def _written(node: object) -> str:
    """Like `ast.dump`, without empty fields, in which versions of Python differ."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    given = [
        f"{name}={_written(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != [] and name != "kind"
    ]
    return f"{type(node).__name__}({','.join(given)})"


@lru_cache(maxsize=1024)
def _imported(content: bytes, package: str) -> tuple[str, ...]:
    """The modules that a file names in imports, and the packages around them."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return ()
    names = [name for node in ast.walk(tree) for name in _names(node, package)]
    parents = [name.rsplit(".", cut)[0] for name in names for cut in range(1, name.count(".") + 1)]
    return tuple(dict.fromkeys([*names, *parents]))


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
        if base:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Call) and node.args:
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        name = getattr(node.args[0], "value", None)
        if called in ("import_module", "__import__") and isinstance(name, str):
            yield name


def _place(module: str) -> Path | None:
    """The file of a module, without importing it; None for what has none."""
    if (loaded := sys.modules.get(module)) is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file else None
    folders = None
    spec = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _is_local(module: str, place: Path, own: str) -> bool:
    if module == "kdbench" or module.startswith("kdbench."):
        return own == OBJECTIVES and module.startswith(f"{OBJECTIVES}.")
    if own and (module == own or module.startswith(f"{own}.")):
        return True
    python = Path(sysconfig.get_path("stdlib"))
    return not (_INSTALLED & set(place.parts) or place.is_relative_to(python))


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
