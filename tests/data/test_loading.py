"""TFDS sets: every pixel and label arrives, the cache suffices alone, and errors name what is wrong."""

import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import mi_jax as mj
from mi_jax.data import cache, preparation, tfds_source
from mi_jax.errors import InputError
from tests.data import tiny_tfds

TRAIN, TEST = tiny_tfds.pictures(300, seed=1), tiny_tfds.pictures(9, seed=2)


def in_any_order(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    """TFDS shuffles while it writes, so splits are compared as multisets."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder that holds the TFDS set `tiny`."""
    folder = tmp_path_factory.mktemp("tfds")
    tiny_tfds.write(folder, "tiny", {"train": tiny_tfds.examples(*TRAIN), "test": tiny_tfds.examples(*TEST)})
    return folder


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    """No test sees the caches or data of the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))


def only_entry() -> Path:
    (entry,) = cache.entries("tiny")
    return entry


def refused(folder: Path, name: str = "odd") -> str:
    with pytest.raises(InputError) as caught:
        mj.data.load(name, data_dir=folder)
    return str(caught.value)


def test_every_pixel_and_label_arrives(prepared):
    dataset = mj.data.load("tiny", data_dir=prepared)
    assert in_any_order(dataset.train.images, dataset.train.labels) == in_any_order(*TRAIN)
    assert in_any_order(dataset.test.images, dataset.test.labels) == in_any_order(*TEST)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    assert dataset.class_names == ("ant", "bee", "cat")
    assert dataset.name == "tiny"
    assert dataset.train.factors == {}


def test_second_load_reads_the_same_from_the_cache(prepared, monkeypatch):
    first = mj.data.load("tiny", data_dir=prepared)
    monkeypatch.delattr(tfds_source, "decode")
    second = mj.data.load("tiny", data_dir=prepared)
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(first, split).images, getattr(second, split).images)
        np.testing.assert_array_equal(getattr(first, split).labels, getattr(second, split).labels)
    assert second.class_names == first.class_names


def test_cache_suffices_without_the_source_and_without_tfds(prepared, monkeypatch):
    decoded = mj.data.load("tiny", data_dir=prepared)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    np.testing.assert_array_equal(mj.data.load("tiny").train.images, decoded.train.images)
    np.testing.assert_array_equal(mj.data.load("tiny:1.0.0").train.labels, decoded.train.labels)


def test_missing_tfds_is_named_with_the_command_to_install_it(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "run `pip install tensorflow-datasets array-record`" in refused(prepared, "tiny")
    assert "is neither in" in refused(tmp_path, "cifar10")
    with pytest.raises(InputError, match="run `pip install tensorflow-datasets tensorflow-cpu`"):
        mj.data.prepare("cifar10", data_dir=tmp_path)


def test_limit_is_balanced_and_nested(prepared):
    small, large = (mj.data.load("tiny", data_dir=prepared, limit=limit) for limit in (30, 60))
    assert np.array_equal(np.bincount(small.train.labels), [10, 10, 10])
    np.testing.assert_array_equal(large.train.images[:30], small.train.images)
    assert len(small.test) == 9


def test_a_changed_source_is_decoded_again(prepared, tmp_path):
    mj.data.load("tiny", data_dir=prepared)
    other = tiny_tfds.pictures(12, seed=3)
    tiny_tfds.write(tmp_path, "tiny", {"train": tiny_tfds.examples(*other), "test": tiny_tfds.examples(*TEST)})
    changed = mj.data.load("tiny", data_dir=tmp_path)
    assert in_any_order(changed.train.images, changed.train.labels) == in_any_order(*other)
    with pytest.raises(
        InputError, match=r"tiny is cached from several sources .* give data_dir, or remove all but one"
    ):
        mj.data.load("tiny")


def test_newest_version_is_taken_unless_one_is_named(tmp_path):
    for version, seed in (("1.10.0", 10), ("1.9.0", 9)):
        parts = {"train": tiny_tfds.examples(*tiny_tfds.pictures(6, seed=seed)), "test": tiny_tfds.examples(*TEST)}
        tiny_tfds.write(tmp_path, "tiny", parts, version=version)
    for name, seed in (("tiny", 10), ("tiny:1.9.0", 9)):
        loaded = mj.data.load(name, data_dir=tmp_path).train
        assert in_any_order(loaded.images, loaded.labels) == in_any_order(*tiny_tfds.pictures(6, seed=seed))


def test_a_set_with_train_alone_is_divided_and_validation_stands_in_for_test(tmp_path):
    tiny_tfds.write(tmp_path, "single", {"train": tiny_tfds.examples(*TRAIN)})
    dataset = mj.data.load("single", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (240, 60)
    assert np.array_equal(np.bincount(dataset.test.labels), [20, 20, 20])
    together = [
        np.concatenate([getattr(dataset.train, part), getattr(dataset.test, part)]) for part in ("images", "labels")
    ]
    assert in_any_order(*together) == in_any_order(*TRAIN)

    tiny_tfds.write(tmp_path, "held", {"train": tiny_tfds.examples(*TRAIN), "validation": tiny_tfds.examples(*TEST)})
    held = mj.data.load("held", data_dir=tmp_path).test
    assert in_any_order(held.images, held.labels) == in_any_order(*TEST)


@pytest.mark.parametrize("file", ["train_images.npy", "test_labels.npy"])
def test_a_flipped_bit_in_the_cache_is_found_and_named(prepared, file):
    mj.data.load("tiny", data_dir=prepared)
    damaged = only_entry() / file
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=rf"damaged \({file}: its checksum is wrong\); remove it with `rm -r '.*'`"):
        mj.data.load("tiny", data_dir=prepared)


@pytest.mark.parametrize("file", ["meta.json", "train_labels.npy"])
def test_a_missing_cache_file_is_named(prepared, file):
    mj.data.load("tiny", data_dir=prepared)
    (only_entry() / file).unlink()
    with pytest.raises(InputError, match=rf"damaged \({file}: it cannot be read\)"):
        mj.data.load("tiny", data_dir=prepared)


def test_metadata_of_another_kind_in_the_cache_are_named(prepared):
    mj.data.load("tiny", data_dir=prepared)
    (only_entry() / "meta.json").write_text('{"name": "tiny", "class_names": [], "sha256": []}')
    with pytest.raises(InputError, match=r"damaged \(train_images.npy: its checksum is wrong\)"):
        mj.data.load("tiny", data_dir=prepared)


def test_an_interrupted_cache_write_leaves_nothing_that_is_read(prepared, monkeypatch):
    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_move", interrupt)
        with pytest.raises(Interrupted):
            mj.data.load("tiny", data_dir=prepared)
    assert cache.entries("tiny") == []
    assert list((cache.root() / "tiny").iterdir()) == []
    assert len(mj.data.load("tiny", data_dir=prepared).train) == 300


def test_what_a_killed_process_left_in_the_cache_is_removed_after_a_day(prepared):
    dataset = mj.data.load("tiny", data_dir=prepared)
    folder, entry = cache.root() / "tiny", only_entry()
    old, new = folder / ".incomplete-old", folder / ".incomplete-new"
    for left in (old, new):
        left.mkdir()
        (left / "train_images.npy").touch()
    os.utime(old, (0, 0))
    cache.write(dataset, entry)
    assert sorted(folder.iterdir()) == sorted([new, entry])


def test_a_cache_that_cannot_be_written_is_said_and_does_not_stop_the_run(prepared, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(mj.data.load("tiny", data_dir=prepared).train) == 300
    assert "tiny is not cached and will be decoded again next time" in capsys.readouterr().err


def test_two_processes_that_write_the_same_entry_leave_one_whole(prepared):
    dataset = mj.data.load("tiny", data_dir=prepared)
    cache.write(dataset, only_entry())
    assert len(cache.read(only_entry()).train) == 300


def test_progress_goes_to_stderr_in_plain_lines(prepared, capsys):
    mj.data.load("tiny", data_dir=prepared)
    written = capsys.readouterr()
    assert written.out == ""
    assert "Decoding tiny train (once): 300 images" in written.err


def test_images_of_differing_size_are_refused(tmp_path):
    mixed = tiny_tfds.examples(*TEST) + tiny_tfds.examples(*tiny_tfds.pictures(1, seed=0, shape=(6, 4, 3)))
    description = tiny_tfds.features((None, None, 3))
    tiny_tfds.write(tmp_path, "odd", {"train": mixed, "test": mixed}, description=description)
    assert "images of different sizes (" in refused(tmp_path)
    assert "6 x 4 x 3" in refused(tmp_path)


def test_sets_that_are_no_classification_of_images_are_refused_with_the_reason(tmp_path):
    picture = tiny_tfds.png(TEST[0][0])
    text = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)})
    tiny_tfds.write(
        tmp_path, "odd", {"train": [{"text": "a", "label": 0}]}, description=text, supervised_keys=("text", "label")
    )
    assert refused(tmp_path) == "odd cannot be used for image classification: its inputs are not images."

    unlabelled = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(5, 4, 3))})
    parts = {"train": [{"image": picture}]}
    tiny_tfds.write(tmp_path, "bare", parts, description=unlabelled, supervised_keys=None)
    assert "its images carry no class label" in refused(tmp_path, "bare")

    picture.seek(0)
    parts = {"train": [{"image": picture, "label": -1}]}
    tiny_tfds.write(tmp_path, "hidden", {**parts, "test": tiny_tfds.examples(*TEST)})
    assert "The train split of hidden has images without a label" in refused(tmp_path, "hidden")

    deep = tiny_tfds.features((5, 4, 3), dtype=np.uint16)
    tiny_tfds.write(tmp_path, "deep", {"train": tiny_tfds.examples(*TEST)}, description=deep)
    assert "its pixels are uint16, not uint8" in refused(tmp_path, "deep")

    clear = tiny_tfds.features((5, 4, 4))
    tiny_tfds.write(tmp_path, "clear", {"train": tiny_tfds.examples(*TEST)}, description=clear)
    assert "its images have 4 channels, not 1 or 3" in refused(tmp_path, "clear")

    tiny_tfds.write(tmp_path, "elsewhere", {"extra": tiny_tfds.examples(*TEST)})
    assert "elsewhere has none of the splits train, test and validation; it has extra" in refused(tmp_path, "elsewhere")


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_set_with_a_test_or_validation_split_alone_has_no_training_images(tmp_path, split):
    tiny_tfds.write(tmp_path, "corrupted", {split: tiny_tfds.examples(*TEST)})
    for _ in range(2):  # decoded, then from the cache
        dataset = mj.data.load("corrupted", data_dir=tmp_path, limit=100)
        assert in_any_order(dataset.test.images, dataset.test.labels) == in_any_order(*TEST)
        assert (len(dataset.train), dataset.input_shape) == (0, (5, 4, 3))


def test_other_labels_for_the_same_images_are_not_read_from_the_cache(tmp_path):
    for name, shift in (("a", 0), ("b", 1)):
        parts = {part: tiny_tfds.examples(TRAIN[0], (TRAIN[1] + shift) % 3) for part in ("train", "test")}
        tiny_tfds.write(tmp_path / name, "tiny", parts)
        loaded = mj.data.load("tiny", data_dir=tmp_path / name).train
        assert in_any_order(loaded.images, loaded.labels) == in_any_order(TRAIN[0], (TRAIN[1] + shift) % 3)


def test_a_pattern_of_versions_takes_the_newest_that_fits(tmp_path):
    for version, seed in (("3.0.1", 1), ("3.1.0", 2), ("4.0.0", 3)):
        parts = {"test": tiny_tfds.examples(*tiny_tfds.pictures(6, seed=seed))}
        tiny_tfds.write(tmp_path, "tiny", parts, version=version)
    for name, seed in (("tiny:3.*.*", 2), ("tiny:3.0.*", 1), ("tiny:*.*.*", 3)):
        loaded = mj.data.load(name, data_dir=tmp_path).test
        assert in_any_order(loaded.images, loaded.labels) == in_any_order(*tiny_tfds.pictures(6, seed=seed))


def test_a_data_directory_one_level_off_gets_a_hint(prepared):
    for off in (prepared / "tiny", prepared / "tiny" / "1.0.0"):
        assert refused(off, "tiny") == f"tiny is not in {off}, but it is in {prepared}; give that as data_dir."
    assert "give that as data_dir" in refused(prepared.parent, "tiny")


def test_metadata_with_another_number_of_records_is_refused(tmp_path):
    folder = tiny_tfds.write(tmp_path, "tiny", {"test": tiny_tfds.examples(*TEST)})
    info = json.loads((folder / "dataset_info.json").read_text())
    for count in (8, 10):
        info["splits"][0]["shardLengths"] = [str(count)]
        (folder / "dataset_info.json").write_text(json.dumps(info))
        assert f"The test split in {folder} holds 9 of {count} records" in refused(tmp_path, "tiny")


def test_tfrecords_are_refused_with_the_command_that_mends_it(tmp_path):
    folder = tiny_tfds.write(tmp_path, "tiny", {"train": tiny_tfds.examples(*TEST), "test": tiny_tfds.examples(*TEST)})
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    message = refused(tmp_path, "tiny")
    assert "as TFRecord files, which need TensorFlow in every run" in message
    assert "`python experiments/prepare_data.py --dataset tiny --data-dir " in message


def test_a_set_that_was_converted_in_place_is_read_from_its_array_records(tmp_path):
    folder = tiny_tfds.write(tmp_path, "tiny", {"train": tiny_tfds.examples(*TRAIN), "test": tiny_tfds.examples(*TEST)})
    info = json.loads((folder / "dataset_info.json").read_text())
    formats = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (folder / "dataset_info.json").write_text(json.dumps(info | formats))
    for records in list(folder.glob("*.array_record-*")):
        (folder / records.name.replace("array_record", "tfrecord")).write_bytes(b"what TensorFlow wrote")
    dataset = mj.data.load("tiny", data_dir=tmp_path)
    assert in_any_order(dataset.train.images, dataset.train.labels) == in_any_order(*TRAIN)
    assert in_any_order(dataset.test.images, dataset.test.labels) == in_any_order(*TEST)


def test_truncated_records_are_named(tmp_path):
    folder = tiny_tfds.write(tmp_path, "tiny", {"train": tiny_tfds.examples(*TRAIN), "test": tiny_tfds.examples(*TEST)})
    (records,) = folder.glob("*train*")
    records.write_bytes(records.read_bytes()[: records.stat().st_size // 2])
    assert f"The train split in {folder} cannot be decoded" in refused(tmp_path, "tiny")


def test_damaged_metadata_is_named(tmp_path):
    folder = tiny_tfds.write(tmp_path, "tiny", {"train": tiny_tfds.examples(*TEST), "test": tiny_tfds.examples(*TEST)})
    for content in ("{", "[]", '{"alternativeFileFormats": null}'):
        (folder / "dataset_info.json").write_text(content)
        assert f"{folder / 'dataset_info.json'} cannot be read" in refused(tmp_path, "tiny")


def test_a_set_that_is_not_downloaded_gets_the_command_to_do_so(tmp_path):
    message = refused(tmp_path, "fashion_mnist")
    command = f"python experiments/prepare_data.py --dataset fashion_mnist --data-dir '{tmp_path}'"
    assert message == f"fashion_mnist is not in {tmp_path}: run `{command}` once."


def test_an_unknown_name_is_told_what_looks_like_it(tmp_path):
    assert "There is no data set 'cifar1'" in refused(tmp_path, "cifar1")
    assert "did you mean cifar10" in refused(tmp_path, "cifar1")
    assert "did you mean shapetex" in refused(tmp_path, "shape_tex")
    assert "is not the name of a data set" in refused(tmp_path, "../etc")


def test_a_folder_without_the_set_is_not_silently_replaced_by_the_cache(prepared, tmp_path):
    mj.data.load("tiny", data_dir=prepared)
    assert refused(tmp_path, "tiny").endswith("but a decoded copy is cached; leave out data_dir to use it.")


def test_configurations_must_be_named_where_there_are_several(tmp_path):
    for config in ("blur", "fog"):
        tiny_tfds.write(tmp_path / "corrupted", config, {"train": tiny_tfds.examples(*TRAIN)})
    assert "holds the configurations blur, fog: name one, as in corrupted/blur" in refused(tmp_path, "corrupted")
    assert len(mj.data.load("corrupted/fog", data_dir=tmp_path).train) == 240


@pytest.mark.usefixtures("as_a_user")
def test_preparing_what_is_no_name_is_refused():
    with pytest.raises(InputError, match=r"^Invalid name 3: expected a string, such as cifar10\.$"):
        mj.data.prepare(3)


def test_preparing_says_that_tensorflow_is_needed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs TensorFlow once .*`pip install tensorflow-cpu`, then `python experim"):
        mj.data.prepare("mnist", data_dir=tmp_path)


def test_preparing_without_network_says_so_at_once(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(preparation.urllib.request, "getproxies", dict)
    monkeypatch.setattr(preparation.socket, "getaddrinfo", unreachable)
    with pytest.raises(InputError, match=r"needs the network, and storage.googleapis.com cannot be reached .*copy its"):
        mj.data.prepare("mnist", data_dir=tmp_path)


def test_preparing_what_is_no_image_classification_is_refused_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(InputError, match="imdb_reviews cannot be used for image classification: its inputs are not im"):
        mj.data.prepare("imdb_reviews", data_dir=tmp_path)


def test_script_prepares_what_is_there_and_leaves_with_2_where_it_cannot(prepared, tmp_path, monkeypatch, capsys):
    script = Path(mj.__file__).parent.parent / "experiments" / "prepare_data.py"

    def exit_status(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    assert exit_status("--dataset", "tiny", "--data-dir", str(prepared)) == 0
    assert capsys.readouterr().out.startswith("tiny: 300 training and 9 test images of 5 x 4 x 3, 3 classes.")
    assert exit_status("--dataset", "tinny", "--data-dir", str(tmp_path)) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert len(written.err.strip().splitlines()) == 1
    assert "There is no data set 'tinny'" in written.err
    assert exit_status("--dataset", "digits") == 2
    assert "digits is built in and needs no preparation" in capsys.readouterr().err
    assert exit_status("--dataset", "npz:x.npz") == 2
    assert "npz:x.npz is read from disk and needs no preparation" in capsys.readouterr().err


@pytest.mark.slow
def test_real_sets_have_the_published_statistics():
    folder = os.environ.get("MI_JAX_DATA")
    if not folder:
        pytest.fail("set MI_JAX_DATA to a folder with the TFDS sets cifar10 and mnist")
    mnist, cifar10 = (mj.data.load(name, data_dir=folder) for name in ("mnist", "cifar10"))
    assert (len(mnist.train), len(mnist.test)) == (60000, 10000)
    assert (mnist.train.images / 255).mean() == pytest.approx(0.1307, abs=1e-4)
    assert np.array_equal(np.bincount(mnist.test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert cifar10.input_shape == (32, 32, 3)
    np.testing.assert_allclose((cifar10.train.images / 255).mean(axis=(0, 1, 2)), [0.491, 0.482, 0.447], atol=0.003)


@pytest.mark.parametrize(
    ("data_dir", "sentence"),
    [
        (3, r"data_dir is 3; expected the path of a directory, or None"),
        ("a" * 5000, r"a{5000}/tiny cannot be read \(File name too long\); correct .* its data_dir"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_a_data_dir_that_is_no_path_is_refused(data_dir, sentence):
    with pytest.raises(InputError, match=sentence):
        mj.data.load("tiny", data_dir=data_dir)
