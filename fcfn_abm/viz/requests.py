"""Requests of the page: actions and the types of their arguments."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any

from fcfn_abm.errors import abbreviate

_NUMBER, _WHOLE, _TEXT = (int, float), (int,), (str,)
_ARGUMENTS: dict[str, tuple[tuple[type, ...], ...]] = {
    "play": (),
    "pause": (),
    "step": (),
    "reset": (),
    "seek": (_WHOLE,),
    "speed": (_NUMBER,),
    "set": (_TEXT, (str, bool, int, float, NoneType)),
    "put_back": (_TEXT,),
    "put_all_back": (),
    "pick": ((*_NUMBER, NoneType),),
    "pick_next": (_WHOLE,),
    "pick_at": (_TEXT, _NUMBER, _NUMBER),
    "hover": (_TEXT, _NUMBER, _NUMBER),
    "leave": (),
    "ready": (),
    "colour": (_TEXT,),
    "pin": (),
    "unpin": (_TEXT,),
    "use": (_TEXT,),
    "upload": (_TEXT, _WHOLE, _WHOLE, _TEXT),
    "download": (_TEXT,),
}
"""The actions of :meth:`fcfn_abm.viz.session.Session.handle`."""


def parse_request(message: object) -> tuple[str, list[Any]]:
    """Return the action and the arguments of a browser's message.

    Raises
    ------
    ValueError
        If the message is not a valid request.
    """
    if not isinstance(message, dict):
        raise ValueError(f"{abbreviate(message)} is not a request")
    action, arguments = message.get("action"), message.get("arguments")
    if not isinstance(action, str) or action not in _ARGUMENTS:
        raise ValueError(f"there is no action {abbreviate(action)}")
    types = _ARGUMENTS[action]
    if not isinstance(arguments, list) or len(arguments) != len(types):
        raise ValueError(f"{action} takes {len(types)} arguments, not {abbreviate(arguments)}")
    for value, allowed in zip(arguments, types, strict=True):
        if type(value) not in allowed or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{action} does not take {abbreviate(value)}")
    return action, arguments
