"""Names and questions of strangers are shown, and do nothing, in a terminal, in XML and in Markdown."""

import sys
import xml.sax.saxutils
from xml.etree import ElementTree as ET

import pytest

from bench.core.text import escape_markdown, one_line, show_controls

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))


def test_any_text_is_allowed_in_xml():
    shown = show_controls(EVERY)
    assert ET.fromstring(f"<a>{xml.sax.saxutils.escape(shown)}</a>").text == shown


def test_a_control_character_is_seen_as_its_escape():
    assert one_line("a\rb \x1b[31m\n\u202ec \N{ZERO WIDTH JOINER}") == (
        "a b \\x1b[31m \\u202ec \N{ZERO WIDTH JOINER}"
    )
    assert show_controls("a\n\tb") == "a\n\tb"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("![x](http://a/b.png)", r"\![x]\(http://a/b.png)"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("a_b _c_ *d*", r"a_b \_c\_ \*d\*"),
        ("a\n\n# b", "a # b"),
        ("[a]: http://b", r"[a]\: http://b"),
        ("0.8 [0.7, 0.9]", "0.8 [0.7, 0.9]"),
    ],
)
def test_markdown_acts_on_nothing(text, escaped):
    assert escape_markdown(text) == escaped
