"""Errors whose messages state what is wrong, where, and what is allowed.

The command line prints them without a traceback and ends with exit code 2 (a mistake of the
user's) or 1 (:class:`RunFailedError`).
"""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

_MAX_LENGTH = 2000  # characters per message
_CONTROL = re.compile(  # control characters, direction marks, Unicode line separators
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
)
_SHORT = reprlib.Repr(maxstring=80, maxother=80, maxlist=10, maxtuple=10, maxdict=10)


class FcfnError(Exception):
    """Base class of all errors that this package raises on purpose.

    Very long messages, for example from damaged files, are cut in the middle. All errors can be
    pickled and copied, whatever arguments their constructors take, because they travel between
    processes.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_shorten(a) if isinstance(a, str) else a for a in args))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[FcfnError], args: tuple[object, ...]) -> FcfnError:
    """Create an error from its message alone; pickle restores the attributes."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InvalidGameError(FcfnError, ValueError):
    """A game with invalid numbers: costs, budgets or parameters."""


class ReadOnlyError(FcfnError, AttributeError):
    """A computed attribute, which cannot be set."""


class InvalidPrivacyError(FcfnError, ValueError):
    """Privacy parameters outside their range."""


class InvalidScenarioError(FcfnError, ValueError):
    """A scenario that cannot be read, or that contains something that is not allowed.

    Parameters
    ----------
    reason : str
        A sentence, or its end; the place is put in front of it.
    file : str, optional
        Source of the scenario: a path, ``--set game.alpha=x``, or ``settings``.
    table : str, optional
        The TOML table, as written in the file: ``population.rho``.
    key : str, optional
        The key in that table, or at the top level of the file.
    conflict : str, optional
        Another part of the scenario that this place conflicts with.

    Examples
    --------
    >>> print(InvalidScenarioError("must be positive.", file="a.toml", table="game", key="alpha"))
    a.toml, [game] alpha: must be positive.
    >>> print(InvalidScenarioError("there is no such file.", file="a.toml"))
    a.toml: there is no such file.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        table: str | None = None,
        key: str | None = None,
        conflict: str | None = None,
    ) -> None:
        location = [
            part for part in (f"[{table}]" if table is not None else None, key) if part is not None
        ]
        place = ", ".join(
            [*([] if file is None else [file]), *([" ".join(location)] if location else [])]
        )
        if conflict is not None:
            place += f" conflicts with {conflict}"
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason = _shorten(reason)
        self.file, self.table, self.key, self.conflict = file, table, key, conflict


class InvalidRecordError(FcfnError, ValueError):
    """A folder that is not a record, or an incomplete record."""


class InvalidDataError(FcfnError, ValueError):
    """Training data that cannot be used as requested."""


class OutputError(FcfnError, OSError):
    """A path to which results cannot be written."""


class MissingExtraError(FcfnError, ImportError):
    """A feature whose optional dependencies are not installed."""


class PluginError(FcfnError, ImportError):
    """A plug-in that cannot be imported."""


class TakenNameError(FcfnError, ValueError):
    """A name that is already registered for something else."""


class UnknownNameError(FcfnError, LookupError):
    """A name that is not in a registry."""

    def __init__(self, what: str, name: object, known: Iterable[str]) -> None:
        known = sorted(known, key=_natural_order)
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        super().__init__(
            f"There is no {what} called {abbreviate(name)}.{hint} Known: {', '.join(known)}."
        )


def _natural_order(name: str) -> list[str | int]:
    """Return a sort key that puts fig9 before fig10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


class RunFailedError(FcfnError, RuntimeError):
    """A run that started and could not be completed."""


class WorkersLostError(RunFailedError):
    """Workers that are not available, or were lost; their tasks are not at fault."""


def abbreviate(value: object) -> str:
    """Return the repr of a value for an error message; long ones are cut in the middle.

    Examples
    --------
    >>> abbreviate("a" * 500)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    try:
        text = _SHORT.repr(value)
        return join_lines(text) if "\n" in text else text
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"too long to print ({type(value).__name__})"


def escape_control_characters(text: str) -> str:
    r"""Escape every control character that a terminal would interpret.

    Spaces, tabs and newlines stay. The result is valid in JSON and in XML.

    Examples
    --------
    >>> print(escape_control_characters("\x1b[31mred"))
    \u001b[31mred
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def join_lines(text: str) -> str:
    r"""Join the lines of a text into one line.

    Examples
    --------
    >>> join_lines(" A title \n of two lines")
    'A title of two lines'
    """
    return " ".join(text.split())


def _shorten(message: str) -> str:
    half = _MAX_LENGTH // 2
    return message if len(message) <= _MAX_LENGTH else f"{message[:half]} ... {message[-half:]}"


def describe_cause(error: BaseException) -> str:
    r"""Return the cause that the system or a library gives for an error, without a full stop.

    Examples
    --------
    >>> describe_cause(OSError(5, "Input/output error", "a.parquet"))
    'Input/output error'
    >>> describe_cause(ValueError("Two columns have one name.\nThe schema was ..."))
    'Two columns have one name'
    """
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    first = str(error).strip().partition("\n")[0]
    return join_lines(first).rstrip(".:") or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def as_floats(
    name: str, value: npt.ArrayLike, *, error: type[FcfnError] = InvalidGameError
) -> npt.NDArray[np.float64]:
    """Convert an argument to an array of floats.

    Parameters
    ----------
    name : str
        Name of the argument, for the error message.
    value : array_like of float
        Numbers; in an array also strings that contain numbers.
    error : type of FcfnError, default InvalidGameError
        Type of the error that is raised.

    Raises
    ------
    FcfnError
        If a value is masked or not a number; the message names the argument and the first such
        value. NaN passes: :func:`require_positive` refuses it.

    Examples
    --------
    >>> as_floats("rho", ["0.1", "0,2"])
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: rho must hold numbers, but rho[1] is '0,2'.
    """
    if type(value) is np.ndarray and value.dtype == np.float64:
        return value
    require_unmasked(error=error, **{name: value})
    if isinstance(value, str | bytes):
        raise error(f"{name} must be a number, but is {abbreviate(value)}.")
    try:
        array = np.asarray(value)
        if (
            array.dtype.kind in "cmM"
        ):  # NumPy would drop imaginary parts, and turn dates into numbers
            raise error(f"{name} must hold real numbers, but has type {array.dtype}.")
        return array.astype(float, copy=False)
    except (TypeError, ValueError, OverflowError, RuntimeError) as cause:
        if isinstance(cause, FcfnError):
            raise
        raise error(_describe_no_number(name, value, cause)) from None


def _describe_no_number(name: str, value: object, cause: Exception) -> str:
    """Return a sentence that names the first value that is not a number."""
    entries = np.asarray(value, dtype=object)
    has_rows = all(isinstance(entry, list | tuple | np.ndarray) for entry in entries.flat)
    for index, entry in np.ndenumerate(entries):
        try:
            float(entry)
        except (TypeError, ValueError, OverflowError):
            if has_rows:
                return f"{name} must have rows of equal length."
            place = f"{name}[{', '.join(map(str, index))}]" if index else name
            return f"{name} must hold numbers, but {place} is {abbreviate(entry)}."
    return f"{name} cannot be converted to numbers: {join_lines(str(cause))}."


def as_number(
    name: str, value: npt.ArrayLike, *, error: type[FcfnError] = InvalidGameError
) -> float:
    """Convert an argument to a float.

    Raises
    ------
    FcfnError
        If it is not a number, or more than one. NaN passes: :func:`require_positive` rejects it.

    Examples
    --------
    >>> as_number("budget", [1.0, 2.0])
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: budget must be one number, but has shape (2,).
    """
    if isinstance(value, float):
        return float(value)
    array = as_floats(name, value, error=error)
    if array.ndim:
        raise error(f"{name} must be one number, but has shape {array.shape}.")
    return array.item()


def as_count(
    name: str,
    value: object,
    *,
    least: int = 1,
    most: int | None = None,
    error: type[FcfnError] = InvalidGameError,
) -> int:
    """Return what a user gave as a whole number from ``least`` to ``most``; 2.0 and True are none.

    Examples
    --------
    >>> as_count("games", 0, most=1_000_000)
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: games must be a whole number from 1 to 1,000,000, but is 0.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is not None and least <= count and (most is None or count <= most):
        return count
    allowed = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
    is_short = count is not None and abs(count) < 10**30
    given = f"{count:,}" if is_short else abbreviate(value)
    raise error(f"{name} must be a whole number {allowed}, but is {given}.")


def as_path(name: str, value: object, *, error: type[FcfnError] = OutputError) -> Path:
    r"""Convert an argument to a path.

    Raises
    ------
    FcfnError
        If it is not a path, or not a valid file name.

    Examples
    --------
    >>> as_path("out", 3)
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.OutputError: out must be a path, as text or pathlib.Path, but is 3.
    """
    try:
        path = Path(value)  # type: ignore[arg-type]
    except TypeError:
        raise error(
            f"{name} must be a path, as text or pathlib.Path, but is {abbreviate(value)}."
        ) from None
    if "\0" in str(path):
        raise error(f"{abbreviate(str(path))}: not a valid file name.")
    return path


def as_list(
    name: str, value: object, *, what: str, error: type[FcfnError] = InvalidGameError
) -> list[Any]:
    """Convert an argument to a list; a string is not accepted as a list of characters."""
    require_unmasked(error=error, **{name: value})
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise error(f"{name} must be a list of {what}, but is {abbreviate(value)}.")
    return list(value)


def as_names(name: str, value: object, *, error: type[FcfnError] = InvalidGameError) -> list[str]:
    """Convert an argument to a list of names.

    Examples
    --------
    >>> as_names("mechanisms", "random")
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: mechanisms must be a list of names, but is 'random'.
    """
    names = as_list(name, value, what="names", error=error)
    for one in names:
        if not isinstance(one, str):
            raise error(f"{name} must be a list of names, but holds {abbreviate(one)}.")
    return names


def require_unmasked(*, error: type[FcfnError] = InvalidGameError, **values: object) -> None:
    """Raise ``error`` if a value of a masked array is masked (missing).

    Examples
    --------
    >>> require_unmasked(rho=np.ma.masked_array([0.1, 0.2], mask=[False, True]))
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: rho has missing values: rho[1] is masked (1 of 2 values).
    """
    for name, value in values.items():
        mask = np.asarray(False)
        if isinstance(value, np.ma.MaskedArray):
            mask = np.ma.getmaskarray(value)
        elif isinstance(value, list | tuple):  # of rows, or of np.ma.masked
            mask = np.array(
                [isinstance(v, np.ma.MaskedArray) and bool(np.ma.is_masked(v)) for v in value]
            )
        if not mask.any():
            continue
        first = ", ".join(str(int(i)) for i in np.argwhere(mask)[0])
        place = f"{name}[{first}]" if first else name
        raise error(
            f"{name} has missing values: {place} is masked ({mask.sum()} of {mask.size} values)."
        )


def require_positive(
    *, error: type[FcfnError] = InvalidGameError, zero: bool = False, **values: npt.ArrayLike
) -> None:
    """Raise ``error`` unless every value is finite and positive (``zero``: or zero).

    Examples
    --------
    >>> require_positive(rho=[0.5, -0.2])
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: rho must be positive and finite, but rho[1] = -0.2 (1 of 2
    values).
    """
    allowed = "zero or positive, and finite" if zero else "positive and finite"
    for name, value in values.items():
        if isinstance(value, float) and (0 < value < math.inf or (zero and value == 0)):
            continue  # ten times as fast as with an array
        array = as_floats(name, value, error=error)
        bad = ~(np.isfinite(array) & ((array >= 0) if zero else (array > 0)))
        if not bad.any():
            continue
        if array.ndim == 0:
            raise error(f"{name} must be {allowed}, but is {array.item():g}.")
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        place = ", ".join(map(str, first))
        raise error(
            f"{name} must be {allowed}, but {name}[{place}] = {array[first]:g} "
            f"({bad.sum()} of {array.size} values)."
        )


def require_between(
    low: float, high: float, *, error: type[FcfnError] = InvalidGameError, **values: npt.ArrayLike
) -> None:
    """Raise ``error`` unless every value lies strictly between ``low`` and ``high``."""
    for name, value in values.items():
        array = as_floats(name, value, error=error)
        if not ((array > low) & (array < high)).all():
            worst = array[~((array > low) & (array < high))].flat[0]
            raise error(f"{name} must lie between {low:g} and {high:g}, but is {worst:g}.")


def require_one_of(kind: Any, *, error: type[FcfnError] = InvalidGameError, **values: Any) -> None:
    """Raise ``error`` unless every value is one of the names of a ``Literal`` type.

    Examples
    --------
    >>> from typing import Literal
    >>> type Unit = Literal["record", "client"]
    >>> require_one_of(Unit, unit="person")
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: unit must be 'record' or 'client', but is 'person'.
    """
    allowed = get_args(getattr(kind, "__value__", kind))
    for name, value in values.items():
        if not (isinstance(value, str) and value in allowed):
            names = " or ".join(map(repr, allowed))
            raise error(f"{name} must be {names}, but is {abbreviate(value)}.")


def require_counts(*, error: type[FcfnError] = InvalidGameError, **values: npt.ArrayLike) -> None:
    """Raise ``error`` unless every value is a whole number of at least 1; rejects 2.0 and True.

    Examples
    --------
    >>> require_counts(n_releases=1.5)
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: n_releases must be a whole number of at least 1, but is 1.5.
    """
    for name, value in values.items():
        require_unmasked(error=error, **{name: value})
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # rows of different lengths
            array = np.asarray(None)
        if array.dtype == object:  # not numbers, or integers beyond 64 bits
            as_count(name, value, most=2**63 - 1, error=error)
            continue
        bad = array < 1 if array.dtype.kind in "iu" else np.ones(array.shape, dtype=bool)
        if bad.any():
            raise error(
                f"{name} must be a whole number of at least 1, but is "
                f"{abbreviate(array[bad][0].item())}."
            )


def require_type(
    kind: type, *, error: type[FcfnError] = InvalidGameError, **values: object
) -> None:
    """Raise ``error`` unless every value is an instance of a class.

    Examples
    --------
    >>> require_type(dict, options="x")
    Traceback (most recent call last):
    ...
    fcfn_abm.errors.InvalidGameError: options must be a dict, but is 'x'.
    """
    for name, value in values.items():
        if not isinstance(value, kind):
            raise error(f"{name} must be a {kind.__name__}, but is {abbreviate(value)}.")


def require_known(what: str, name: object, known: Iterable[str]) -> None:
    """Raise UnknownNameError unless a name is one of the known names."""
    known = list(known)
    if not (isinstance(name, str) and name in known):
        raise UnknownNameError(what, name, known)
