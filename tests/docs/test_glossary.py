"""The glossary is in order, and what it calls a name in code is one."""

import re
from pathlib import Path

PAGE = Path("docs/glossary.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^### (.+)\n\n(?:(.+)\\\n)?((?:.+\n)+)", PAGE, re.MULTILINE)
SOURCE = "\n".join(
    file.read_text(encoding="utf-8")
    for file in [*Path("fcfn_abm").rglob("*.py"), *Path("docs/reference").glob("*.md")]
)


def test_terms_are_in_alphabetical_order_below_their_letters():
    terms = [term for term, _, _ in ENTRIES]
    assert len(terms) == PAGE.count("\n### ") > 60
    assert terms == sorted(terms, key=str.lower)
    letters = re.findall(r"^## (.)$", PAGE, re.MULTILINE)
    assert letters == sorted({term[0].upper() for term in terms})


def test_every_name_in_code_is_in_the_program_or_its_reference():
    names = [name for _, head, _ in ENTRIES for name in re.findall(r"`([^`]+)`", head)]
    assert len(names) > 60
    for name in names:
        for word in re.findall(r"\w[\w-]*", name):
            assert re.search(rf"\b{word}\b", SOURCE), name


def test_no_entry_is_longer_than_four_sentences():
    for term, _, text in ENTRIES:
        assert len(re.findall(r"[.!?](?=\s|$)", text)) <= 4, term
