"""
What mkdocs does beside the pages of docs/: the pages of the root, the API reference, and Mermaid from its npm package.

mkdocs calls the functions by their names (its hooks).  The README becomes the first page; CONTRIBUTING, SECURITY and
the changelog get pages, and links that lead from docs/ to them, or from them into docs/, are turned.  Every module of
the packages that other code builds on has a page of its docstrings.  Links to other files of the repository stay names.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PAGES = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}  # fmt: skip
_API_PACKAGES = ("protocol", "node", "coordinator")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def modules() -> list[str]:
    """The modules of the API reference, each package before what is in it."""
    found = []
    for package in _API_PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "versions" not in parts and parts[-1] != "env":
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(set(found))


def turned(text: str, source: str) -> str:
    """A page's text with its relative links as they lead on the site; `source` is its path in the repository."""
    here = _on_site(source)

    def turn(found: re.Match[str]) -> str:
        image, label, target = found.groups()
        path, mark, fragment = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return found[0]
        where = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if where not in _PAGES and (not where.startswith("docs/") or where.endswith(".toml")):
            return label  # a file of the repository that the site does not have
        return f"{image}[{label}]({posixpath.relpath(_on_site(where), posixpath.dirname(here) or '.')}{mark}{fragment})"

    return _LINK.sub(turn, text)


def _on_site(path: str) -> str:
    return _PAGES.get(path, path.removeprefix("docs/"))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root, the API reference and Mermaid's script."""
    from mkdocs.structure.files import File  # noqa: PLC0415  of the site's own environment

    for source, page in _PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=turned(text, source)))
    for module in modules():
        page = f"reference/api/{module}.md"
        files.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
    script = Path(os.environ["MERMAID_JS"])
    files.append(File.generated(config, "assets/mermaid.min.js", abs_src_path=str(script)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page that is in docs/."""
    return markdown if page.file.generated_by else turned(markdown, f"docs/{page.file.src_uri}")
