"""Texts of unknown content in Markdown, as a renderer shows them."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sepnet.report.markdown import escape, fenced

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
names = st.text(st.sampled_from("ab_*`[]()<>&|\\\"'#!\n") | st.characters(codec="utf-8", categories=["L", "N", "P"]))


def _words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^<>]*>", "", html)).split())


@pytest.mark.slow
@given(names)
def test_an_escaped_name_is_shown_as_it_is(name: str) -> None:
    html = MARKDOWN.render(f"# x {escape(name)} x")
    plain = re.sub(r"</?(h1|em|strong)>", "", html)  # _emphasis_ changes nothing that matters
    assert "<" not in plain
    assert _words(html).replace("_", "") == f"x {' '.join(name.split())} x".replace("_", "").replace("x  x", "x x")


@given(names)
def test_an_escaped_name_stays_in_its_cell_and_its_attribute(name: str) -> None:
    html = MARKDOWN.render(f"| a | b |\n| --- | --- |\n| {escape(name)} | c |\n")
    assert html.count("<td>") == 2
    assert '"' not in escape(name)


@given(st.text(st.sampled_from("`~ab \n")))
def test_a_fence_holds_whatever_is_in_it(text: str) -> None:
    html = MARKDOWN.render(fenced(f"x{text}x", "python"))
    assert re.fullmatch(r'<pre><code class="language-python">[^<]*</code></pre>\n', html)
