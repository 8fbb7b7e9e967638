"""MkDocs: the README as home page, and the repository's files that pages link to beside the pages."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r'(?<=\]\()(?!\w+:|#)[^)#\s]+|(?<=srcset=")[^"]+|(?<=src=")[^"]+')
OUTSIDE = "repository"
"""The folder of the site that holds what lies outside ``docs/``."""
SHOWN_FOR_A_FOLDER = ("README.md", "config.toml")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, and each file of the repository that a page links to."""
    home = LINK.sub(lambda match: _from_docs(match[0]), (ROOT / "README.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "index.md", content=home))
    for page in [file for file in files if file.src_uri.endswith(".md")]:
        for link in LINK.findall(page.content_string):
            if path := _outside(link):
                _add(files, config, path)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links that leave ``docs/`` into links to the site's copies."""
    return LINK.sub(lambda match: _copy_of(path) if (path := _outside(match[0])) else match[0], markdown)


def _from_docs(link: str) -> str:
    """Return a link of the README's as one of a page in ``docs/``."""
    return posixpath.relpath(link, "docs")


def _outside(link: str) -> Path | None:
    """Return the file outside ``docs/`` that a page's link leads to, from the repository's root; None if it does not.

    Raises:
        FileNotFoundError: there is none.

    """
    path = posixpath.normpath(posixpath.join("docs", link))
    if path.startswith("docs/"):
        return None
    candidates = [Path(path), *(Path(path, name) for name in SHOWN_FOR_A_FOLDER)]
    for candidate in candidates:
        if (ROOT / candidate).is_file():
            return candidate
    raise FileNotFoundError(f"a page links to '{link}': '{path}' is neither a file nor a folder that has a README.md")


def _copy_of(path: Path) -> str:
    """Return where the site has a file; a Markdown file is no page there, but a text."""
    return f"{OUTSIDE}/{path.as_posix()}" + (".txt" if path.suffix == ".md" else "")


def _add(files: Files, config: MkDocsConfig, path: Path) -> None:
    uri = _copy_of(path)
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, content=(ROOT / path).read_bytes()))
