"""Records of runs: tables, recorder, stream of traces, folders."""

from fcfn_abm.process.files import write_file
from fcfn_abm.process.folders import raise_as_output_error
from fcfn_abm.records.folders import (
    PARTS,
    new_folder,
    remove_leftovers,
    require_free,
    write_facts,
)
from fcfn_abm.records.integrity import seal
from fcfn_abm.records.recorder import Recorder, sample_rows
from fcfn_abm.records.store import Record, read_record, write_record
from fcfn_abm.records.stream import TraceWriter

__all__ = [
    "PARTS",
    "Record",
    "Recorder",
    "TraceWriter",
    "new_folder",
    "raise_as_output_error",
    "read_record",
    "remove_leftovers",
    "require_free",
    "sample_rows",
    "seal",
    "write_facts",
    "write_file",
    "write_record",
]
