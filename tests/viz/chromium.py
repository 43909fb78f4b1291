"""Where the browser is, and what is left out without one."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("FCFN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
"""The browser's path; ``FCFN_CHROMIUM`` names another one."""

MISSING = (
    "no Chromium was found (install Debian's package chromium, or set FCFN_CHROMIUM)"
    if not CHROMIUM
    else "playwright or the extra viz is not installed"
    if not (find_spec("playwright") and find_spec("solara"))
    else ""
)
