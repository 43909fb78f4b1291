"""What the system and Arrow say of a file that cannot be read is one sentence."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fcfn_abm as fa
from fcfn_abm.errors import InvalidRecordError

SMALL = fa.Scenario.model_validate({"population": {"n_nodes": 4}})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(5, "[Errno 5] Error reading bytes. Detail: [errno 5] Input/output"),
            "Input/output",
        ),
        (pa.ArrowInvalid("Two columns are called rho.\nx: int64\nx: int64"), "are called rho"),
        (pa.ArrowInvalid(""), "ArrowInvalid"),
    ],
)
def test_a_table_that_cannot_be_read_is_said_in_one_sentence(tmp_path, monkeypatch, error, words):
    fa.run_scenario(SMALL, tmp_path / "record")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pq, "read_table", fail)
    with pytest.raises(InvalidRecordError) as refused:
        fa.read_record(tmp_path / "record")
    message = str(refused.value)
    assert "rno 5" not in message
    assert "\n" not in message
    assert words in message
    assert message.endswith(".")
    assert not message.endswith("..")
