"""What came out: tables, recorder, stream of traces, store."""

from fcfn_abm.records.recorder import Recorder, sampled_rows
from fcfn_abm.records.store import (
    PARTS,
    Record,
    new_folder,
    read_record,
    require_free,
    told_as,
    write_facts,
    write_record,
)
from fcfn_abm.records.stream import TraceWriter

__all__ = [
    "PARTS",
    "Record",
    "Recorder",
    "TraceWriter",
    "new_folder",
    "read_record",
    "require_free",
    "sampled_rows",
    "told_as",
    "write_facts",
    "write_record",
]
