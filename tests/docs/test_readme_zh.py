"""The Chinese README is in step with the English one: the same code, pictures and links."""

import re
from pathlib import Path

import pytest

ENGLISH = Path("README.md").read_text(encoding="utf-8")
CHINESE = Path("README.zh.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def bare(language, line):
    """Return a line of code without what is translated: its comment, or what a file is for."""
    if not language:
        return re.split(r"\s{2,}", line.strip())[0]
    return re.sub(r"(^|\s+)#.*", "", line).rstrip()


def code(text):
    return [
        (language, [bare(language, line) for line in body.splitlines()])
        for language, body in BLOCK.findall(text)
    ]


@pytest.mark.parametrize("place", range(max(len(code(ENGLISH)), len(code(CHINESE)))))
def test_a_block_of_code_is_the_same_in_both(place):
    both = [code(text)[place : place + 1] for text in (ENGLISH, CHINESE)]
    assert both[1] == both[0], (
        f"block {place + 1} of code differs: carry README.md's over to README.zh.md"
    )


@pytest.mark.parametrize("level", ["## ", "### "])
def test_both_have_as_many_sections(level):
    counts = [len(re.findall(f"^{level}", text, re.MULTILINE)) for text in (ENGLISH, CHINESE)]
    assert counts[1] == counts[0], "a section of README.md is missing in README.zh.md, or too many"


def targets(text):
    """Return what a page links to and shows, without its other language."""
    found = re.findall(r"\]\(([^)]+)\)", text)
    return sorted(set(found) - {"README.md", "README.zh.md"})


def test_both_link_to_the_same_pages_and_show_the_same_pictures():
    assert targets(CHINESE) == targets(ENGLISH)


def test_words_in_code_type_are_the_same_set():
    """Names of commands and files in the running text are not translated, and none is forgotten."""

    def words(text):
        return set(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))

    assert words(CHINESE) == words(ENGLISH)


def test_every_page_that_is_linked_is_there():
    for target in targets(CHINESE):
        if not target.startswith("http"):
            assert Path(target.split("#")[0]).exists(), target


def test_the_chinese_page_leads_to_the_english_one():
    assert "](README.md)" in CHINESE
