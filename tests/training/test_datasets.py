"""Stored images: what is read is what was written, and what is wrong is said in a sentence."""

import hashlib
import io
import json
import pickle
import urllib.error
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from numpy.testing import assert_array_equal
from PIL import Image
from test_training_plan import PLAN
from typer.testing import CliRunner

from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidDataError
from fcfn_abm.rng import stream
from fcfn_abm.training import DATASETS, NETS, FederatedTrainer


def encoded(pixels, kind="PNG"):
    place = io.BytesIO()
    Image.fromarray(pixels).save(place, kind)
    return place.getvalue()


def pictures(n, shape=(6, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write(path, images, labels, writers=None, names=None, encode=encoded):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "image": [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(images)],
        "label": pa.array(labels, pa.int64()),
        **({} if writers is None else {"writer": pa.array(writers, pa.int64())}),
    }
    table = pa.table(columns)
    if names:
        table = table.replace_schema_metadata({"class_names": json.dumps(names)})
    pq.write_table(table, path)


def load(kind, seed=1, **options):
    return DATASETS.create(kind, options).load(stream(seed, "data", 0))


def as_floats(images):
    return images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2).astype(np.float32) / 255


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_parquet_images_come_back_pixel_by_pixel(tmp_path, shape):
    train, test = pictures(9, shape), pictures(4, shape, seed=1)
    write(tmp_path / "train.parquet", train, np.arange(9) % 3, names=["a", "b", "c"])
    write(tmp_path / "test.parquet", test, [2, 1, 0, 0])
    data = load("parquet", path=str(tmp_path))
    assert_array_equal(data.train_images, as_floats(train))
    assert_array_equal(data.test_images, as_floats(test))
    assert_array_equal(data.train_labels, np.arange(9) % 3)
    assert_array_equal(data.test_labels, [2, 1, 0, 0])
    assert data.class_names == ("a", "b", "c")
    assert data.train_images.dtype == np.float32


def of_value(n):
    """Images of one value each, by which they can be told apart."""
    return np.repeat(np.arange(n, dtype=np.uint8), 16).reshape(n, 4, 4)


def values(images):
    return np.round(images[:, 0, 0, 0] * 255).astype(int)


@pytest.mark.parametrize(("own", "options"), [(True, {"split": "paper"}), (False, {})])
def test_the_papers_split_takes_each_image_once_four_fifths_for_training(tmp_path, own, options):
    images = of_value(50)
    if own:
        write(tmp_path / "train.parquet", images[:45], np.arange(45))
        write(tmp_path / "test.parquet", images[45:], np.arange(45, 50))
    else:
        write(tmp_path / "train.parquet", images, np.arange(50))
    data = load("parquet", path=str(tmp_path), **options)
    assert len(data.train_labels) == 40
    assert_array_equal(values(data.train_images), data.train_labels)  # each kept its own label
    assert_array_equal(values(data.test_images), data.test_labels)
    both = np.concatenate([data.train_labels, data.test_labels])
    assert_array_equal(np.sort(both), np.arange(50))
    again, other = (load("parquet", seed=s, path=str(tmp_path), **options) for s in (1, 2))
    assert_array_equal(again.train_labels, data.train_labels)
    assert (other.train_labels != data.train_labels).any()


def test_a_part_of_the_images_is_drawn_without_repetition(tmp_path):
    write(tmp_path / "train.parquet", of_value(50), np.arange(50), writers=np.arange(50) % 7)
    write(tmp_path / "test.parquet", of_value(50), np.arange(50))
    data = load("parquet", path=str(tmp_path), n_train=20, n_test=3)
    assert len(set(values(data.train_images))) == 20
    assert len(data.test_labels) == 3
    assert_array_equal(data.train_writers, data.train_labels % 7)
    with pytest.raises(InvalidDataError, match="n_train = 51 exceeds the 50 available images"):
        load("parquet", path=str(tmp_path), n_train=51)


def broken_label(path):
    write(path, of_value(3), [0, -1, 2])


def broken_image(path):
    write(path, of_value(3), [0, 1, 2], encode=lambda _: b"no image")


def broken_chunk(path):
    png = encoded(pictures(1, (28, 28))[0])
    start = png.index(b"IDAT") - 4  # a length that ends within the pixels: no chunk follows there
    write(
        path,
        of_value(3),
        [0, 1, 2],
        encode=lambda _: png[:start] + b"\0\0\0\x40" + png[start + 4 :],
    )


def missing_image(path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "a.png"}] * 5, struct)
    pq.write_table(pa.table({"image": images, "label": [0] * 5}), path)


def mixed_sizes(path):
    write(path, [*of_value(3), *pictures(3)], range(6))


def no_label(path):
    pq.write_table(pa.table({"image": [{"bytes": b"", "path": ""}], "kind": [1]}), path)


def no_bytes(path):
    pq.write_table(pa.table({"image": ["abc"], "label": [1]}), path)


def no_rows(path):
    write(path, [], [])
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ]
    )
    pq.write_table(schema.empty_table(), path)


def no_parquet(path):
    path.write_bytes(b"PAR1 or so")


def too_few_names(path):
    write(path, of_value(5), range(5), names=["a", "b"])


def nothing(path):
    pass


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (broken_label, "label must contain integers from 0"),
        (broken_image, r"the image in row \d cannot be decoded"),
        (broken_chunk, r"the image in row \d cannot be decoded"),
        (missing_image, r"the image in row \d is missing"),
        (mixed_sizes, r"the same size and type, but row \d is . x . in grey and row \d is"),
        (no_label, "needs a column image .* has image, kind"),
        (no_bytes, "needs a column image"),
        (no_rows, "has no rows"),
        (no_parquet, "cannot be read as a Parquet file"),
        (too_few_names, "labels up to 4, but names of only 2 classes"),
        (nothing, "does not exist"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, damage, sentence):
    path = tmp_path / "images.parquet"
    damage(path)
    with pytest.raises(InvalidDataError, match=f"images.parquet: .*{sentence}"):
        load("parquet", path=str(path))


def test_the_data_folder_holds_parquet_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    write(tmp_path / "emnist" / "train.parquet", of_value(20), np.arange(20))
    write(tmp_path / "emnist" / "test.parquet", of_value(5), np.arange(5))
    data = load("emnist")
    assert data.train_images.shape == (20, 1, 4, 4)
    assert data.label == "EMNIST byclass, 20 training and 5 test images"
    with pytest.raises(
        InvalidDataError, match=r"'emnist-letters' is not in .* data prepare emnist-l"
    ):
        load("emnist", part="letters")


def idx(array):
    """The format of MNIST's files: two zeros, type, number of axes, sizes, bytes."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_emnist(root, upright):
    """Write "letters" as torchvision keeps it: six images to train on, and the rest."""
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, rows in (("train", slice(0, 6)), ("test", slice(6, 8))):
        stored = upright[rows].transpose(0, 2, 1)
        (folder / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(idx(stored))
        labels = np.arange(1, 9)[rows]  # "letters" counts from one
        (folder / f"emnist-letters-{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def test_emnist_as_torchvision_keeps_it_is_turned_upright(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    upright = pictures(8, (28, 28))
    write_emnist(tmp_path, upright)
    data = load("emnist", part="letters")
    assert_array_equal(data.train_images[:, 0], upright[:6].astype(np.float32) / 255)
    assert_array_equal(data.train_labels, np.arange(6))
    assert data.class_names[:2] == ("a", "b")
    assert len(data.class_names) == 26
    assert "emnist-letters is ready" in fcfn("data", "prepare", "emnist-letters").stdout


def fcfn(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],  # cut short
        lambda data: data[:6],
        lambda _: b"",
        lambda data: b"\xff" + data[1:],
        lambda data: data[:3] + b"\x02" + data[4:],  # another number of axes
        lambda _: idx(np.arange(1, 4)),  # whole, and of other files
    ],
    ids=["cut", "head", "empty", "type", "axes", "other"],
)
def test_a_damaged_file_of_torchvisions_is_said_and_the_rest_is_listed(
    tmp_path, monkeypatch, part, kind, damage
):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    folder = write_emnist(tmp_path, pictures(8, (28, 28)))
    file = folder / f"emnist-letters-{part}-{kind}-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    sentence = f"{folder.parent}: the files of 'emnist-letters' are corrupt or incomplete: "
    prepared = fcfn("data", "prepare", "emnist-letters")
    assert prepared.exit_code == 2
    assert sentence in prepared.stderr
    assert "Delete this folder and run `fcfn data prepare emnist-letters` again" in prepared.stderr
    listed = fcfn("data", "list")
    assert listed.exit_code == 0
    assert f"damaged: {sentence}" in listed.stdout
    assert "missing; fcfn data prepare emnist-digits" in listed.stdout
    with pytest.raises(InvalidDataError, match="are corrupt or incomplete"):
        load("emnist", part="letters")


def test_labels_that_stand_for_no_class_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    folder = write_emnist(tmp_path, pictures(8, (28, 28)))
    (folder / "emnist-letters-test-labels-idx1-ubyte").write_bytes(idx(np.array([0, 27])))
    with pytest.raises(InvalidDataError, match="there are labels from 0 to 27"):
        load("emnist", part="letters")


def test_a_missing_file_of_torchvisions_is_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    folder = write_emnist(tmp_path, pictures(8, (28, 28)))
    file = folder / "emnist-letters-test-labels-idx1-ubyte"
    whole = file.read_bytes()
    file.unlink()
    listed = fcfn("data", "list")
    assert "files of 'emnist-letters' are missing or corrupt; download them" in listed.stdout
    monkeypatch.setattr(torchvision.datasets.EMNIST, "download", lambda _: file.write_bytes(whole))
    assert "emnist-letters is ready" in fcfn("data", "prepare", "emnist-letters").stdout


def test_cifar10_as_torchvision_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = pictures(12, (3, 32, 32))
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, rows in zip(files, np.split(np.arange(12), 6), strict=True):
        batch = {"data": images[rows].reshape(2, -1), "labels": rows.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = ["airplane", *"bcdefghij"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    data = load("cifar10")
    assert_array_equal(data.train_images, images[:10].astype(np.float32) / 255)
    assert_array_equal(data.test_labels, [10, 11])
    assert data.class_names[0] == "airplane"


def test_the_command_lists_and_checks_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    write(tmp_path / "cifar10" / "train.parquet", of_value(20), np.arange(20))
    listed = CliRunner().invoke(app, ["data", "list"])
    assert listed.exit_code == 0
    assert "missing; fcfn data prepare emnist-letters" in listed.stdout
    row = next(line.split() for line in listed.stdout.splitlines() if "cifar10" in line)
    assert row == ["cifar10", "20", "-", "20", str(tmp_path / "cifar10")]
    ready = CliRunner().invoke(app, ["data", "prepare", "cifar10"])
    assert "cifar10 is ready in" in ready.stdout
    unknown = CliRunner().invoke(app, ["data", "prepare", "cifar"])
    assert unknown.exit_code == 2
    assert "Did you mean 'cifar10'?" in unknown.stderr


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("row", [0, 1234, 2499])
def test_prepare_decodes_every_image(tmp_path, monkeypatch, part, row):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    files = {p: [encoded(image) for image in pictures(2500, (2, 2))] for p in ("train", "test")}
    files[part][row] = files[part][row][:40]
    for name, images in files.items():
        path = tmp_path / "emnist" / f"{name}.parquet"
        write(path, images, np.arange(2500) % 62, encode=lambda image: image)
    prepared = fcfn("data", "prepare", "emnist")
    assert prepared.exit_code == 2
    assert f"{part}.parquet: the image in row {row} cannot be decoded" in prepared.stderr
    assert "ready" not in prepared.stdout


@pytest.mark.parametrize("where", ["train", "test"])
def test_prepare_finds_images_of_another_size(tmp_path, monkeypatch, where):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    images = [*pictures(2000, (2, 2)), *pictures(1, (3, 2))]  # not in one batch with another size
    train, test = (images, images[:1]) if where == "train" else (images[:-1], images[-1:])
    write(tmp_path / "emnist" / "train.parquet", train, [0] * len(train))
    write(tmp_path / "emnist" / "test.parquet", test, [0] * len(test))
    prepared = fcfn("data", "prepare", "emnist")
    assert prepared.exit_code == 2
    said = "row 2000 is 2 x 3 in grey" if where == "train" else "these are 2 x 3 in grey, and those"
    assert said in prepared.stderr


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_prepare_compares_files_with_their_checksums(tmp_path, monkeypatch, above, binary):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    file = tmp_path / "emnist" / "train.parquet"
    write(file, of_value(20), np.arange(20))
    sums = (tmp_path if above else file.parent) / "SHA256SUMS"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    lines = f"{digest} {' *'[binary]}{file.relative_to(sums.parent)}\n"
    other = f"{'0' * 64}  mnist/test.parquet\n" if above else ""  # of no concern
    sums.write_text(other + lines)
    assert "emnist is ready" in fcfn("data", "prepare", "emnist").stdout

    write(file, of_value(20), np.arange(20)[::-1])  # whole, and not what was listed
    changed = fcfn("data", "prepare", "emnist")
    assert changed.exit_code == 2
    assert f"{file}: does not match its checksum in {sums}" in changed.stderr

    sums.write_text(lines.replace("train", "test"))
    assert "test.parquet: is listed in" in fcfn("data", "prepare", "emnist").stderr
    sums.write_text("no sums")
    assert "SHA256SUMS: line 1 must contain a checksum" in fcfn("data", "prepare", "emnist").stderr


@pytest.mark.parametrize("variable", ["FCFN_DATA", "XDG_CACHE_HOME", "HOME"])
def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path, monkeypatch, variable):
    for name in ("FCFN_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    failed = CliRunner().invoke(app, ["data", "prepare", "cifar10"])
    assert failed.exit_code == 2
    assert f"{tmp_path / 'file'} is not a folder. Set FCFN_DATA to" in failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["cifar10", "emnist-balanced"])
def test_without_a_network_one_sentence_says_how_to_get_it(tmp_path, monkeypatch, name):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    failed = CliRunner().invoke(app, ["data", "prepare", name])
    assert failed.exit_code == 1
    assert f"{name} could not be downloaded: " in failed.stderr
    assert f"copy {tmp_path} here" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_a_trainer_holds_no_images_of_its_own(tmp_path, shape):
    write(tmp_path / "train.parquet", pictures(30, shape), np.arange(30) % 3)
    data = load("parquet", path=str(tmp_path))
    shards = [np.array([5, 2, 9, 0]), np.array([1, 23])]
    plan = replace(PLAN, net=NETS.create("emnist-cnn"))
    made = FederatedTrainer(data, shards, plan)
    assert np.shares_memory(made._images.numpy(), data.train_images)
    assert np.shares_memory(made.engine._test_images.numpy(), data.test_images)
    stacked = FederatedTrainer(data, shards, plan, engine="stacked", device="cpu").engine
    assert np.shares_memory(stacked._images.numpy(), data.train_images)
    images, labels = made.samples(1)
    assert_array_equal(images, data.train_images[shards[1]])
    assert_array_equal(labels, data.train_labels[shards[1]])
