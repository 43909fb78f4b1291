"""The paper's claims, and the verdicts from the numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from fcfn_zhou2023.base import Finding

HOLDS, UNDER, NOT, UNSTATED = (
    "holds",
    "holds under reading",
    "does not hold",
    "not stated",
)


@dataclass(frozen=True)
class Claim:
    """One row of ``expected.toml``."""

    name: str
    figure: str
    """The figure whose numbers decide it."""
    where: str
    """Section, equation or figure of the paper."""
    text: str
    """The claim in short."""
    status: str
    """``printed``, ``implied`` or ``our reading``; the file says what that means."""
    setting: str
    """Parameters of the game that decide it."""
    why: str
    """Explanation of the verdict."""
    readings: Mapping[str, str]
    """Assumption of each reading, by name."""
    plain: str
    """The reading suggested by the wording; empty if it is open."""
    values: Mapping[str, Fraction]
    """Printed numbers, exact."""
    missing: str
    """What the paper does not state although the claim depends on it; empty otherwise."""


@dataclass(frozen=True)
class Row:
    """A claim and its findings."""

    claim: Claim
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """``holds``, ``holds under reading ...``, ``does not hold`` or ``not stated``."""
        holding = [finding.reading for finding in self.findings if finding.holds]
        if not holding:
            return UNSTATED if self.claim.missing else NOT
        complete = not self.claim.missing
        if complete and (len(holding) == len(self.findings) or self.claim.plain in holding):
            return HOLDS
        return f"{UNDER} {', '.join(holding)}"


@cache
def claims() -> Mapping[str, Claim]:
    """Read ``expected.toml``."""
    text = (Path(__file__).parent / "expected.toml").read_text(encoding="utf-8")
    return {
        name: Claim(
            name=name,
            figure=entry["figure"],
            where=entry["where"],
            text=entry["text"],
            status=entry["status"],
            setting=entry["setting"],
            why=entry["why"],
            readings=entry["readings"],
            plain=entry.get("plain", ""),
            values={key: Fraction(value) for key, value in entry.get("values", {}).items()},
            missing=entry.get("missing", ""),
        )
        for name, entry in tomllib.loads(text).items()
    }


def expected(claim: str) -> Mapping[str, Fraction]:
    """Return the printed numbers of a claim."""
    return claims()[claim].values


def judge_claims(findings: Iterable[Finding]) -> list[Row]:
    """Return a row for each claim that was judged, in the order of ``expected.toml``."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.claim, []).append(finding)
    return [Row(claim, tuple(found[name])) for name, claim in claims().items() if name in found]
