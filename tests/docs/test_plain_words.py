"""Docs, messages, comments and names are plain technical English: words that must not occur."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

BANNED = {
    r"dear(er|est|ly)?": "write 'high-cost', or 'costs more'",
    r"told": "write 'a message' or 'an error'",
    r"worth": "write 'value'",
    r"arms?": "write 'training', 'comparison' or 'run'",
    r"laws?": "write 'distribution'",
    r"(go|goes|going|went|gone) on": "write 'continues' or 'resumes'",
    r"mend(s|ed|ing)?": "write 'fix' or 'repair'",
    r"rivals?": "write 'the other mechanisms' or 'the other nodes'",
    r"honest(y|ly)?": "write 'truthful' or 'accurate'",
    r"no file": "write 'not a file', or 'there is no such file'",
    r"(is|are|was|were) looked at": "write 'is compared', 'is read' or 'is checked'",
}
"""Words and phrases, as regular expressions of whole words, and what to write instead."""

ALLOWED = [
    r"honest-but-curious",
    r"honest (nodes?|clients?)",  # that follow the protocol, beside those that misreport
    r"(all|looks) honest",
    r"no file can",
    r"arms of an +node",
    r"arms : sequence",
    r"laws? of large numbers",
    r"power laws?",
    r"scaling laws?",
    r"(data protection|privacy|case|federal|health|copyright) laws?",
    r"bandit('s)? arms?",
    r"arms? of (a|the) bandit",
    r"multi-?armed bandits?",
    r"(no|a) file of (that|this) name",
]
"""Standard terms in which a banned word may stand."""

PARTICIPLES = {
    "asked",
    "begun",
    "bought",
    "built",
    "capped",
    "chosen",
    "claimed",
    "clipped",
    "counted",
    "damaged",
    "dealt",
    "deserted",
    "done",
    "drawn",
    "driven",
    "found",
    "given",
    "gone",
    "grouped",
    "held",
    "kept",
    "known",
    "learnt",
    "left",
    "listed",
    "looped",
    "lost",
    "made",
    "measured",
    "met",
    "moving",
    "opened",
    "overspent",
    "paid",
    "paused",
    "placed",
    "planned",
    "played",
    "playing",
    "posted",
    "priced",
    "printed",
    "ranked",
    "reached",
    "remembered",
    "resumed",
    "rounded",
    "said",
    "scaled",
    "scored",
    "seen",
    "sent",
    "shown",
    "sold",
    "solved",
    "sorted",
    "spent",
    "spread",
    "stopped",
    "stored",
    "taken",
    "tested",
    "told",
    "trained",
    "tried",
    "unfolded",
    "unsolved",
    "used",
    "weighted",
    "worked",
    "written",
}
"""Participles that are no names of functions: these are verbs, or predicates such as is_sold."""

PAGES = ["README.md", "README.zh.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md"]
SOURCES = ["fcfn_abm", "analysis", "examples", "benchmarks"]
TEMPLATES = ("*.jinja", "*.vue", "*.js", "*.css")

WORDS = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
STANDARD = re.compile(rf"\b({'|'.join(ALLOWED)})\b", re.IGNORECASE)


def prose_of_page(path):
    """Yield the numbered lines of a page without code; of a block of code its comments."""
    in_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif in_code:
            yield number, line.partition("#")[2]
        else:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", " ", line)


def prose_of_module(path):
    """Yield the comments and the strings of a module, without code in them."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    for token in tokens:
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type in (tokenize.STRING, tokenize.FSTRING_MIDDLE) and " " in token.string:
            for number, line in enumerate(token.string.splitlines(), token.start[0]):
                code = r"``[^`]*``|`[^`]*`|(>>>|\.\.\. ).*"
                yield number, re.sub(code, " ", line)


def prose_of_scenario(path):
    """Yield the comments and the texts of a scenario file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for found in re.findall(r'"[^"]* [^"]*"|#.*', line):
            yield number, found


def prose_of_template(path):
    """Yield the comments, the texts in quotes and the texts between tags of a template."""
    text = path.read_text(encoding="utf-8")
    pieces = (
        r'"[^"\n]* [^"\n]*"|\'[^\'\n]* [^\'\n]*\'|`[^`]* [^`]*`|(?<!:)//.*|/\*[\s\S]*?\*/'
        r"|<!--[\s\S]*?-->|\{#[\s\S]*?#\}|>[^<>{}]*[a-z] [^<>{}]*<"
    )
    for found in re.finditer(pieces, text):
        first = text.count("\n", 0, found.start()) + 1
        yield from enumerate(found.group().splitlines(), first)


def prose_of_tests(path):
    """Yield the names of the tests of a module, which are sentences."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def list_files():
    """Return all shipped files with prose, and how to read it, by name."""
    files = {path: prose_of_page for pattern in PAGES for path in Path().glob(pattern)}
    for folder in SOURCES:
        files |= dict.fromkeys(Path(folder).rglob("*.py"), prose_of_module)
        for pattern in TEMPLATES:
            files |= dict.fromkeys(Path(folder).rglob(pattern), prose_of_template)
    files |= dict.fromkeys(Path("scenarios").rglob("*.toml"), prose_of_scenario)
    files |= dict.fromkeys(Path("tests").rglob("test_*.py"), prose_of_tests)
    return {
        path.as_posix(): read
        for path, read in files.items()
        if not path.name.endswith(".min.js") and path.name != Path(__file__).name
    }


def find_banned(lines):
    """Return the lines with a banned word outside of a standard term, with what to write."""
    hits = []
    for number, line in lines:
        for found in WORDS.finditer(STANDARD.sub(" ", line)):
            advice = next(BANNED[w] for w in BANNED if re.fullmatch(w, found[0], re.IGNORECASE))
            hits.append((number, found[0], " ".join(line.split()), advice))
    return hits


@pytest.mark.parametrize("word", ["dearer", "told", "worth", "arms", "laws", "goes on", "mended"])
def test_a_banned_word_is_found(word):
    assert find_banned([(7, f"What is {word}, stands here.")])[0][:2] == (7, word)


@pytest.mark.parametrize(
    "term", ["honest-but-curious", "law of large numbers", "power law", "bandit arms", "charm"]
)
def test_a_standard_term_is_allowed(term):
    assert find_banned([(1, f"This is the {term}.")]) == []


def test_code_in_prose_does_not_count(tmp_path):
    page, module = tmp_path / "page.md", tmp_path / "module.py"
    page.write_text("The table `arms`.\n\n```python\narms = 1  # two arms\n```\n", encoding="utf-8")
    module.write_text('arms = "arms"\n"""The ``arms``, but two laws."""\n', encoding="utf-8")
    assert [hit[:2] for hit in find_banned(prose_of_page(page))] == [(4, "arms")]
    assert [hit[:2] for hit in find_banned(prose_of_module(module))] == [(2, "laws")]


def test_shipped_prose_has_plain_words():
    files = list_files()
    assert {"README.md", "docs/theory.md", "fcfn_abm/errors.py"} <= set(files)
    hits = [
        f"{name}:{number}: {line}  [{word}: {advice}]"
        for name, read in sorted(files.items())
        for number, word, line, advice in find_banned(read(Path(name)))
    ]
    assert not hits, f"{len(hits)} lines with a banned word:\n" + "\n".join(hits)


def test_no_function_is_called_by_a_participle():
    hits = []
    for path in sorted(Path("fcfn_abm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            is_property = any("property" in name or ".setter" in name for name in decorators)
            if not is_property and node.name.strip("_") in PARTICIPLES:
                hits.append(f"{path.as_posix()}:{node.lineno}: {node.name}")
    assert not hits, "functions are verbs or predicates, not participles:\n" + "\n".join(hits)
