"""pyproject.toml, CITATION.cff and codemeta.json state the same facts, in their formats' terms."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

import fcfn_abm as fa

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load(Path("CITATION.cff").read_text(encoding="utf-8"))
CODEMETA = json.loads(Path("codemeta.json").read_text(encoding="utf-8"))
(PAPER,) = CITATION["references"]
(ARTICLE,) = CODEMETA["referencePublication"]

# the keys that Citation File Format 1.2.0 defines, as far as they can be needed here
CFF_KEYS = {
    *("cff-version", "message", "title", "type", "version", "license", "abstract", "authors"),
    *("keywords", "references", "doi", "date-released", "url", "repository-code", "identifiers"),
    *("preferred-citation", "contact", "commit", "license-url", "repository"),
}
REFERENCE_KEYS = {
    *("type", "title", "authors", "journal", "volume", "issue", "year", "languages", "doi"),
    *("start", "end", "pages", "url", "issn", "notes", "month"),
}
PERSON_KEYS = {"family-names", "given-names", "name-particle", "name-suffix", "orcid"}
# the terms of CodeMeta 3.0 that a description of a package takes
CODEMETA_TERMS = {
    *("@context", "@type", "name", "identifier", "description", "version", "license", "author"),
    *("keywords", "applicationCategory", "developmentStatus", "programmingLanguage"),
    *("runtimePlatform", "softwareRequirements", "referencePublication", "codeRepository"),
    *(
        "issueTracker",
        "downloadUrl",
        "dateCreated",
        "dateModified",
        "datePublished",
        "buildInstructions",
    ),
}


def names(people):
    """Return authors as one form of words, of either file."""
    return [
        person.get("name")
        or " ".join(
            person.get(short) or person[long]
            for short, long in (("given-names", "givenName"), ("family-names", "familyName"))
        )
        for person in people
    ]


def test_the_citation_has_what_its_format_requires_and_nothing_that_it_does_not_know():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert all(CITATION[key] for key in ("message", "title", "authors"))
    assert set(CITATION) <= CFF_KEYS
    assert set(PAPER) <= REFERENCE_KEYS
    assert all(PAPER[key] for key in ("type", "title", "authors"))


@pytest.mark.parametrize("author", CITATION["authors"] + PAPER["authors"], ids=str)
def test_an_author_is_a_person_or_has_one_name(author):
    assert set(author) <= PERSON_KEYS or set(author) == {"name"}


def test_codemeta_is_a_description_of_software_in_terms_of_codemeta():
    assert CODEMETA["@context"] == "https://w3id.org/codemeta/3.0"
    assert CODEMETA["@type"] == "SoftwareSourceCode"
    assert set(CODEMETA) <= CODEMETA_TERMS


def test_the_version_is_the_package_s():
    assert CITATION["version"] == CODEMETA["version"] == fa.__version__


def test_the_licence_is_the_same():
    assert CITATION["license"] == PROJECT["license"]
    assert CODEMETA["license"] == f"https://spdx.org/licenses/{PROJECT['license']}"


def test_the_authors_are_the_same():
    assert names(CITATION["authors"]) == names(PROJECT["authors"]) == names(CODEMETA["author"])


def test_the_keywords_are_the_same():
    assert CITATION["keywords"] == PROJECT["keywords"] == CODEMETA["keywords"]


def test_name_and_description_are_the_same():
    assert CODEMETA["identifier"] == PROJECT["name"]
    assert CODEMETA["name"] == fa.__name__
    assert CODEMETA["description"] == PROJECT["description"]
    title = PROJECT["description"][0].lower() + PROJECT["description"][1:]
    assert CITATION["title"] == f"{fa.__name__}: {title}"


def test_codemeta_has_the_requirements_of_the_package():
    assert CODEMETA["softwareRequirements"] == PROJECT["dependencies"]
    assert CODEMETA["runtimePlatform"] == f"Python {PROJECT['requires-python']}"


def test_both_cite_the_paper_alike():
    issue = ARTICLE["isPartOf"]
    assert ARTICLE["name"] == PAPER["title"]
    assert names(ARTICLE["author"]) == names(PAPER["authors"])
    assert issue["isPartOf"]["name"] == PAPER["journal"]
    assert issue["isPartOf"]["volumeNumber"] == str(PAPER["volume"])
    assert issue["issueNumber"] == str(PAPER["issue"])
    assert issue["datePublished"] == str(PAPER["year"])
    assert [ARTICLE["inLanguage"]] == PAPER["languages"]
