"""What a mechanism claims of itself: the check, the comparison and the docs read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fcfn_abm.errors import InvalidGameError, as_names, as_number, require_positive

type Party = Literal["nodes", "server", "agency"]
type Choice = Literal["cost", "epsilon", "contract"]


@dataclass(frozen=True)
class Claims:
    """Properties that hold in every game with a given payment cap.

    What is left out is not claimed; it may still hold.
    """

    budget_balanced: bool = False
    """The server pays no more than the cap B in all."""
    individually_rational: tuple[Party, ...] = ()
    """Whose utility is never below zero."""
    incentive_compatible: tuple[Choice, ...] = ()
    """Which choices a node cannot better: the cost that it reports, its epsilon (the others'
    given), or the contract that it takes."""
    monotone: bool = False
    """A node that costs more never sells more epsilon, all else equal."""
    anonymous: bool = False
    """What a node sells and is paid does not depend on its place among the nodes. Of nodes with
    equal costs some may be left out by their place, if that makes no difference to utilities."""
    scale_invariant: bool = False
    """Costs, cap and beta in another currency unit leave epsilon as it is, and payments change by
    that unit."""
    tolerance: float = 1e-9
    """How much the check allows for rounding errors, as a share of what is paid; utilities below
    zero and payments above the cap are allowed a thousandth of it."""

    def __post_init__(self) -> None:
        """Refuse names that mean nothing, which no check would look for."""
        for field, known in (("individually_rational", Party), ("incentive_compatible", Choice)):
            allowed = get_args(known.__value__)
            for name in as_names(field, getattr(self, field)):
                if name not in allowed:
                    raise InvalidGameError(
                        f"{field} must hold {', '.join(allowed)}, but holds {name!r}."
                    )
        require_positive(zero=True, tolerance=as_number("tolerance", self.tolerance))

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
