"""Folders of Parquet files as data sets are shared: splits, shards, columns, classes, writers."""

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from test_datasets import encoded, fcfn, load, of_value, values, write

from fcfn_abm import memory
from fcfn_abm.errors import InvalidDataError
from fcfn_abm.training.parquet import USUAL_NAMES

ANIMALS = ["cat", "dog", "owl", "yak"]


def write_columns(path, columns, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    try:
        pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"this Arrow cannot write such a file: {error}")


def images(n=4, kind=None):
    """Return a column of images, each of its own value; values tell them apart."""
    rows = [{"bytes": encoded(image), "path": "a.png"} for image in of_value(n)]
    return pa.array(rows if kind is None else [row["bytes"] for row in rows], kind)


def hugging_face(names, label="label"):
    features = {"image": {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


# Splits and shards


@pytest.mark.parametrize("split", ["validation", "valid", "val", "dev"])
def test_a_validation_split_is_the_test_set_where_there_is_no_other_and_is_named(tmp_path, split):
    write(tmp_path / "train.parquet", of_value(40), [0] * 40)
    write(tmp_path / f"{split}.parquet", of_value(8), [0] * 8)
    data = load("parquet", path=str(tmp_path))
    assert (len(data.train_labels), len(data.test_labels)) == (40, 8)
    assert data.label.endswith(
        f", 40 training and 8 test images (test images from {split}.parquet)"
    )


def test_files_that_are_not_used_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    for name, n in (("train", 10), ("test", 5), ("validation", 7), ("extra", 9)):
        write(tmp_path / "emnist" / f"{name}.parquet", of_value(n), [0] * n)
    note = "extra.parquet, validation.parquet not used"
    data = load("emnist")
    assert data.label == f"EMNIST byclass, 10 training and 5 test images ({note})"
    assert f"10 training and 5 test images, 1 classes; {note}." in (
        fcfn("data", "prepare", "emnist").stdout
    )


@pytest.mark.parametrize("below", ["", "data"])
@pytest.mark.parametrize("ending", ["", "-a09b74b3ef9c3b56"])
def test_files_in_several_parts_are_read_in_their_order(tmp_path, below, ending):
    for index in range(3):
        name = f"train-{index:05}-of-00003{ending}.parquet"
        write(tmp_path / below / name, of_value(30)[10 * index :][:10], np.arange(10) + 10 * index)
    write(tmp_path / below / f"test-00000-of-00001{ending}.parquet", of_value(4), np.arange(4))
    data = load("parquet", path=str(tmp_path))
    assert_array_equal(data.train_labels, np.arange(30))
    assert_array_equal(values(data.train_images), np.arange(30))
    assert_array_equal(data.test_labels, np.arange(4))
    few = load("parquet", path=str(tmp_path), n_train=12, split="paper")
    assert_array_equal(values(few.train_images), few.train_labels)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], "train-00001-of-00003.parquet is miss"),
        (["train", "train-00000-of-00001"], "belong to different sets of train images"),
        (["train-00000-of-00001", "train-00000-of-00001-ab"], "2 files of train .* count 1"),
        (["train", "test-00001-of-00002"], "test-00000-of-00002.parquet is missing"),
        (["test"], "has no train.parquet"),
    ],
    ids=str,
)
def test_a_data_set_that_is_not_whole_is_refused(tmp_path, names, words):
    for name in names:
        write(tmp_path / f"{name}.parquet", of_value(4), np.arange(4))
    with pytest.raises(InvalidDataError, match=f"^{re.escape(str(tmp_path))}: .*{words}"):
        load("parquet", path=str(tmp_path))


def test_parts_whose_images_differ_in_size_are_refused_by_name(tmp_path):
    for index, side in enumerate((4, 5)):
        square = np.zeros((6, side, side), dtype=np.uint8)
        write(tmp_path / f"train-0000{index}-of-00002.parquet", square, [0] * 6)
    words = r"train-00001-of-00002.parquet: all images .* 5 x 5 in grey.*those of .* 4 x 4 in grey"
    with pytest.raises(InvalidDataError, match=words):
        load("parquet", path=str(tmp_path))


def test_training_and_test_images_of_two_sizes_are_refused_however_they_are_split(tmp_path):
    write(tmp_path / "train.parquet", np.zeros((9, 4, 4), dtype=np.uint8), [0] * 9)
    write(tmp_path / "test.parquet", np.zeros((9, 5, 5), dtype=np.uint8), [0] * 9)
    for split in ("own", "paper"):
        with pytest.raises(
            InvalidDataError, match=r"test.parquet: all images must have the same size"
        ):
            load("parquet", path=str(tmp_path), split=split)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    def fail(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", fail)
    with pytest.raises(InvalidDataError, match=r": cannot be read: Permission denied.$"):
        load("parquet", path=str(tmp_path))


# Columns


@pytest.mark.parametrize("image", USUAL_NAMES["image"])
@pytest.mark.parametrize(("label", "writer"), [("fine_label", "writer_id"), ("character", None)])
def test_columns_are_recognised_by_the_names_that_data_sets_use(tmp_path, image, label, writer):
    columns = {
        image: images(8),
        label: np.arange(8) % 3,
        "coarse_label": [9] * 8,
        "hsf_id": [1] * 8,
    }
    if writer:
        columns[writer] = np.arange(8) % 2
    write_columns(tmp_path / "train.parquet", columns)
    data = load("parquet", path=str(tmp_path))
    which = values(data.train_images)
    assert_array_equal(data.train_labels, which % 3)
    assert (data.train_writers is None) == (writer is None)


def test_columns_are_named_by_keys(tmp_path):
    columns = {
        "scan": images(8),
        "image": [1] * 8,
        "kind": np.arange(8) % 3,
        "by": np.arange(8) % 2,
    }
    write_columns(tmp_path / "train.parquet", columns)
    keys = {"image": "scan", "label": "kind", "writer": "by"}
    data = load("parquet", path=str(tmp_path), **keys)
    which = values(data.train_images)
    assert_array_equal(data.train_labels, which % 3)
    assert_array_equal(data.train_writers, which % 2)
    words = r"has no column 'scam' \(image\). Did you mean 'scan'\? It has scan, image, kind, by"
    with pytest.raises(InvalidDataError, match=words):
        load("parquet", path=str(tmp_path), **keys | {"image": "scam"})


def test_two_columns_of_one_name_are_refused_in_one_sentence(tmp_path):
    table = pa.Table.from_arrays(
        [images(4), pa.array([0] * 4), pa.array([1] * 4)], ["image"] + ["label"] * 2
    )
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(InvalidDataError, match=r"has 2 columns called label.$"):
        load("parquet", path=str(tmp_path))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
@pytest.mark.parametrize("in_struct", [True, False])
def test_images_are_bytes_of_any_of_arrows_kinds(tmp_path, kind, in_struct):
    column = images(8, kind)
    if in_struct:
        column = pa.StructArray.from_arrays([column], ["bytes"])
    write_columns(tmp_path / "train.parquet", {"image": column, "label": np.arange(8)})
    data = load("parquet", path=str(tmp_path))
    assert_array_equal(values(data.train_images), data.train_labels)


def test_a_small_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    row = encoded(np.zeros((4, 4), np.uint8)) + bytes(2**20)  # what follows an image is passed over
    path = tmp_path / "train.parquet"
    write_columns(path, {"image": pa.array([row] * 100), "label": [0] * 100})
    assert path.stat().st_size < 2**21
    assert len(load("parquet", path=str(path)).train_labels) == 80
    monkeypatch.setattr(memory, "_LIMITS", (tmp_path / "limit",))
    (tmp_path / "limit").write_text(str(150 * 2**20))
    with pytest.raises(InvalidDataError, match=r"has more than 0.073 GiB of encoded images"):
        load("parquet", path=str(path))


# Labels and classes


@pytest.mark.parametrize(
    "describe", [hugging_face, lambda names: {"class_names": json.dumps(names)}]
)
def test_labels_are_matched_by_the_names_of_classes(tmp_path, describe):
    train = {"image": images(4), "label": [0, 1, 2, 3]}
    write_columns(tmp_path / "train.parquet", train, describe(ANIMALS))
    test = {"image": images(4), "label": [3, 2, 1, 0]}  # counts from the other end
    write_columns(tmp_path / "test.parquet", test, describe(ANIMALS[::-1]))
    data = load("parquet", path=str(tmp_path))
    assert data.class_names == tuple(ANIMALS)
    assert_array_equal(data.train_labels, [0, 1, 2, 3])
    assert_array_equal(data.test_labels, [0, 1, 2, 3])


def test_names_belong_to_the_column_of_labels(tmp_path):
    columns = {"img": images(4), "fine_label": [0, 1, 2, 3]}
    write_columns(tmp_path / "train.parquet", columns, hugging_face(ANIMALS, "fine_label"))
    assert load("parquet", path=str(tmp_path)).class_names == tuple(ANIMALS)


@pytest.mark.parametrize(
    ("names", "labels", "words"),
    [
        (
            ["cat", "gnu"],
            [0, 1],
            "test.parquet: has images of 'gnu', a class that .*train.parquet",
        ),
        (["cat", "cat"], [0, 1], "test.parquet: gives two classes the same name"),
        (["cat"], [0, 1], "test.parquet: has labels up to 1, but names of only 1 classes"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(tmp_path, names, labels, words):
    write(tmp_path / "train.parquet", of_value(4), range(4), names=ANIMALS)
    write(tmp_path / "test.parquet", of_value(2), labels, names=names)
    with pytest.raises(InvalidDataError, match=words):
        load("parquet", path=str(tmp_path))


def test_a_name_of_which_there_is_no_image_is_no_matter(tmp_path):
    write(tmp_path / "train.parquet", of_value(4), range(4), names=ANIMALS)
    write(tmp_path / "test.parquet", of_value(1), [1], names=["gnu", "yak"])
    assert_array_equal(load("parquet", path=str(tmp_path)).test_labels, [3])


@pytest.mark.parametrize("text", ['"cat"', "[[1]]", "{", "\xff"])
def test_names_that_are_no_list_are_refused(tmp_path, text):
    columns = {"image": images(4), "label": [0, 1, 2, 3]}
    write_columns(tmp_path / "train.parquet", columns, {"class_names": text})
    with pytest.raises(InvalidDataError, match="class_names in its metadata must be a JSON list"):
        load("parquet", path=str(tmp_path))


def test_without_names_the_classes_are_the_labels_that_occur(tmp_path):
    write(tmp_path / "train.parquet", of_value(6), [1, 2, 4, 4, 2, 1])
    write(tmp_path / "test.parquet", of_value(2), [3, 1])
    data = load("parquet", path=str(tmp_path))
    assert data.class_names == ("1", "2", "3", "4")
    assert_array_equal(data.train_labels, [0, 1, 3, 3, 1, 0])
    assert_array_equal(data.test_labels, [2, 0])


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_labels_and_writers_may_be_text(tmp_path, kind):
    def write_file(name, labels, writers):
        columns = {"image": images(len(labels)), "label": pa.array(labels, kind)}
        write_columns(tmp_path / name, columns | {"writer_id": pa.array(writers, kind)})

    write_file("train-00000-of-00002.parquet", ["yak", "cat"], ["f1", "f0"])
    write_file("train-00001-of-00002.parquet", ["cat", "dog"], ["f0", "f2"])
    write_file("test.parquet", ["yak"], ["f9"])
    data = load("parquet", path=str(tmp_path))
    assert data.class_names == ("cat", "dog", "yak")
    assert_array_equal(data.train_labels, [2, 0, 0, 1])
    assert_array_equal(data.train_writers, [1, 0, 0, 2])
    assert_array_equal(data.test_labels, [2])


def test_text_in_one_file_and_integers_in_another_are_refused(tmp_path):
    write_columns(tmp_path / "train.parquet", {"image": images(4), "label": list("abca")})
    write(tmp_path / "test.parquet", of_value(2), [0, 1])
    with pytest.raises(
        InvalidDataError, match=r"train.parquet, .*test.parquet: labels must all be"
    ):
        load("parquet", path=str(tmp_path))


@pytest.mark.parametrize(
    "labels", [[0.5] * 4, [0, None, 1, 2], [True] * 4, pa.array([2**63] * 4, pa.uint64())], ids=str
)
def test_labels_that_are_neither_are_refused(tmp_path, labels):
    write_columns(tmp_path / "train.parquet", {"image": images(4), "label": labels})
    with pytest.raises(
        InvalidDataError, match=r"train.parquet: label must contain integers from 0"
    ):
        load("parquet", path=str(tmp_path))


def test_as_many_labels_as_images_are_no_classes(tmp_path):
    one = encoded(np.zeros((4, 4), dtype=np.uint8))
    columns = {"image": pa.array([one] * 65_537), "label": np.arange(65_537) * 3}
    write_columns(tmp_path / "train.parquet", columns)
    with pytest.raises(InvalidDataError, match="there are 65,537 labels, but at most 65,536"):
        load("parquet", path=str(tmp_path))


# What the system and Arrow say


def damage(path, text):
    write(path, of_value(8), np.arange(8))
    data = bytearray(path.read_bytes())
    data[30:200] = text * 170
    path.write_bytes(data)


@pytest.mark.parametrize("text", [b"\x00", b"\xff", b"U"])
def test_what_arrow_says_of_a_damaged_file_is_one_sentence(tmp_path, text):
    damage(tmp_path / "train.parquet", text)
    with pytest.raises(InvalidDataError) as refused:
        load("parquet", path=str(tmp_path))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'train.parquet'}: cannot be read as a Parquet file")
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "\n" not in message


def test_a_failing_disk_is_said_in_the_systems_words(tmp_path, monkeypatch):
    write(tmp_path / "train.parquet", of_value(8), np.arange(8))

    def fail(*_, **__):
        raise OSError(5, "Error reading bytes from file. Detail: [errno 5] Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(InvalidDataError, match=r"cannot be read.*: Input/output error\.$"):
        load("parquet", path=str(tmp_path))


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch):
    for name in ("FCFN_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # without HOME and an entry
    listed = fcfn("data", "list")
    assert listed.exit_code == 2
    assert "this user has no home folder; set FCFN_DATA to one." in listed.stderr
    with pytest.raises(InvalidDataError, match="~colleague/images: does not exist"):
        load("parquet", path="~colleague/images")
