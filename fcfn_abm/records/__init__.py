"""What came out: tables, recorder, store."""

from fcfn_abm.records.recorder import Recorder
from fcfn_abm.records.store import (
    Record,
    new_folder,
    read_record,
    require_free,
    write_facts,
    write_record,
)

__all__ = [
    "Record",
    "Recorder",
    "new_folder",
    "read_record",
    "require_free",
    "write_facts",
    "write_record",
]
