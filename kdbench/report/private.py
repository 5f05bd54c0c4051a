"""What a board must not show: paths of a machine and of somebody's home."""

import re
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.paths import check_below
from kdbench.config.schema import Suite
from kdbench.data.records import field_of, splits_of

_HOME = re.compile(r"(?:/home/|/Users/|/root/|[\\/]Users[\\/]+|\bfile:/)[^\s,'\"]*")
_TEXTS = (".yaml", ".json", ".csv", ".md", ".tex")
"""Files in which no record and no answer stands; in the others only this user's home is found."""


def check_suite(suite: Suite) -> None:
    """Refuses to publish a suite whose files or models lie at paths of this machine alone.

    Raises:
        UserError: naming the field.
    """
    paths = {f"{field_of(name)}.path": split.path for name, split in splits_of(suite.data).items()}
    for role, model in (("teacher", suite.teacher), ("student", suite.student)):
        paths |= {f"{role}.path": model.path, f"{role}.gguf": model.gguf}
    paths["tokenizer.path"] = suite.tokenizer.path
    for field, path in paths.items():
        try:
            if path:
                check_below(path, field)
        except UserError as error:
            raise UserError(
                f"{field}: {path}: a board would show this path of your machine; give a path below "
                "the folder in which you run (a link there may lead anywhere), and run under "
                "another --name"
            ) from error


def check_board(folder: Path) -> None:
    """Refuses a board that holds a path of somebody's home.

    Raises:
        UserError: naming file and line.
    """
    own = re.compile(re.escape(str(Path.home())) + r"(?=[/\\])[^\s,'\"]*")
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (*_TEXTS, ".html"):
            continue
        text = path.read_text(encoding="utf-8")
        found = own.search(text) or (_HOME.search(text) if path.suffix in _TEXTS else None)
        if found:
            line = text.count("\n", 0, found.start()) + 1
            raise UserError(
                f"{path.relative_to(folder)}:{line}: {found[0][:100]}: a board must not show paths "
                "of a home; take it out of the run's folder, or run anew with paths below the "
                "folder in which you run"
            )
