"""Texts of unknown content, such as the names of a stranger's run, as they are safe in Markdown."""

import html
import re


def escape(text: str) -> str:
    """Return a text as Markdown that shows it: one line, no markup, no HTML."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=True).replace("&#x27;", "'"))


def fenced(text: str, language: str) -> str:
    """Return a block of code, fenced by more backticks than it holds in a row."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
