"""Claims of a mechanism, used by its check, by comparisons and by the docs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fcfn_abm.errors import InvalidGameError, as_names, as_number, require_positive

type Party = Literal["nodes", "server", "agency"]
type Choice = Literal["cost", "epsilon", "contract"]


@dataclass(frozen=True)
class Claims:
    """Properties that hold in every game with a given payment cap.

    A property that is not listed is not claimed, but may still hold.
    """

    budget_balanced: bool = False
    """The server's total payment never exceeds the cap B."""
    individually_rational: tuple[Party, ...] = ()
    """Parties whose utility is never negative."""
    incentive_compatible: tuple[Choice, ...] = ()
    """Choices that a node cannot improve: its reported cost, its epsilon (with the others' fixed),
    or the contract that it takes."""
    monotone: bool = False
    """A node with a higher cost never sells more epsilon, all else equal."""
    anonymous: bool = False
    """Epsilon and payment of a node do not depend on its place among the nodes. Nodes with equal
    costs may be excluded by their place, if that does not change utilities."""
    scale_invariant: bool = False
    """In another currency unit for costs, cap and beta, epsilon stays the same and payments change
    by that unit."""
    tolerance: float = 1e-9
    """Tolerance of the check for rounding errors, as a share of the payments; for negative
    utilities and payments above the cap it is a thousandth of that."""

    def __post_init__(self) -> None:
        """Reject unknown names, which no check would test."""
        for field, known in (("individually_rational", Party), ("incentive_compatible", Choice)):
            allowed = get_args(known.__value__)
            for name in as_names(field, getattr(self, field)):
                if name not in allowed:
                    raise InvalidGameError(
                        f"{field} may contain only {', '.join(allowed)}, but contains {name!r}."
                    )
        require_positive(zero=True, tolerance=as_number("tolerance", self.tolerance))

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
