"""Copies into the site what docs/ links to elsewhere in the repository.

A page says `../results/LOG.md`, which is right on GitHub. The site has no such folder, so each file
that is linked goes to `files/` of the site, and the link follows it. Text becomes `.txt`, so that a
browser shows it. A link to what does not exist stays as it is, and the strict build refuses it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")
SHOWN = {".css", ".csv", ".html", ".jpg", ".json", ".pdf", ".png", ".svg", ".txt"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the linked files of the repository to the site's."""
    for page in list(files.documentation_pages()):
        for _, link in LINK.findall(page.content_string):
            path = target_of(page.src_uri, link)
            if path is not None and files.get_file_from_path(place(path)) is None:
                files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Points the links of a page to the copies."""
    uri = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        path = target_of(uri, match[2])
        if path is None:
            return match[0]
        return match[1] + posixpath.relpath(place(path), posixpath.dirname(uri) or ".")

    return LINK.sub(moved, markdown)


def target_of(uri: str, link: str) -> str | None:
    """The linked file, from the repository's root; None where it is a page or does not exist."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri), link))
    is_page = path.startswith(("docs/", "../"))
    return path if not is_page and (ROOT / path).is_file() else None


def place(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return f"files/{path}" + ("" if Path(path).suffix in SHOWN else ".txt")
