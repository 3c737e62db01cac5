"""Hooks of the site: they add linked files of the repository and convert roles in docstrings."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "recipes/README.md": "recipes.md",
    "export/README.md": "export.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{f"benchmarks/results/{p.name}": p.name for p in ROOT.glob("benchmarks/results/*.png")},
}
"""Files of the repository that are part of the site, with their paths in the site."""

LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
ROLE = re.compile(r":(?:class|meth|func|attr|mod|data):<code>~?(?:[^<]*\.)?([^<.]+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert links of the repository to links of the site."""
    places = {target: source for source, target in OUTSIDE.items()}
    here = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
        in_site = OUTSIDE.get(target, target.removeprefix("docs/"))
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"]({posixpath.relpath(in_site, start)}"

    return LINK.sub(link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert roles of Sphinx in docstrings to the names of classes and functions."""
    return ROLE.sub(r"<code>\1</code>", html)
