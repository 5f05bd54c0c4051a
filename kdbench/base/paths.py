"""Names that others chose, of files below a folder of ours: none of them leads out of it."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from kdbench.base.errors import UserError

MAX_NAME = 1000
"""Characters of a name with its folders."""


def inside(folder: Path, name: str, where: str, *, links: bool = False) -> Path:
    """The path of what has a name below a folder, whether or not it is there.

    Args:
        folder: which the name may not leave.
        name: from a suite, an archive, an index or the hub.
        where: what messages call the name, a field or a file.
        links: whether symbolic links that lie in the folder may lead out of it: in folders that
            the user or the hub's library made, never in those that are written to.

    Raises:
        UserError: the name is empty or absolute, or leads out of the folder.
    """
    check_below(name, where)
    path = folder / name
    if not links and not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{where}: {name}: a link leads out of {folder}")
    return path


def check_below(name: str, where: str) -> None:
    """Refuses a name that could not be that of something below a folder, on any system.

    Raises:
        UserError: see `inside`.
    """
    windows = PureWindowsPath(name)
    parts = {*PurePosixPath(name).parts, *windows.parts}
    if not name.isprintable() or len(name) > MAX_NAME:
        raise UserError(f"{where}: {name[:60]!a} is no name of a file")
    if (
        not parts
        or name.startswith(("~", "file:"))
        or ".." in parts
        or windows.drive
        or windows.root
    ):
        raise UserError(
            f"{where}: '{name}' leads out of its folder; write a name below it, without '..' and "
            "without a '/' at its beginning"
        )
