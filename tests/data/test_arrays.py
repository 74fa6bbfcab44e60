"""Data sets of arrays, archives and folders: every pixel and label arrives, and what does not fit is named."""

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import mi_jax as mj
from mi_jax.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3
NAMES = ("ant", "bee", "cat")
NO_UTF8 = os.fsdecode(b"caf\xe9")


def write(root: Path, images: np.ndarray = IMAGES, suffix: str = ".png") -> Path:
    """Images i of class i modulo 3: the first nine in `train`, the rest in `test`."""
    for index, pixels in enumerate(images):
        folder = root / ("train" if index < 9 else "test") / NAMES[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(folder / f"{index:02d}{suffix}")
    return root


def test_arrays_arrive_as_they_are():
    dataset = mj.data.from_arrays(IMAGES[:9], LABELS[:9], IMAGES[9:], LABELS[9:], class_names=NAMES)
    np.testing.assert_array_equal(dataset.train.images, IMAGES[:9])
    np.testing.assert_array_equal(dataset.test.labels, LABELS[9:])
    assert dataset.train.labels.dtype == np.int32
    assert dataset.class_names == NAMES
    np.testing.assert_allclose(dataset.train.to_float(), IMAGES[:9] / 255, rtol=1e-6)


def test_tensors_and_arrays_of_names_are_taken():
    names = np.array(NAMES, "S")  # bytes, as HDF5 keeps them
    assert mj.data.from_arrays(IMAGES, LABELS, class_names=names).class_names == NAMES
    given = mj.data.from_arrays(torch.tensor(IMAGES), torch.tensor(LABELS), class_names=np.array(NAMES))
    expected = mj.data.from_arrays(IMAGES, LABELS, class_names=NAMES)
    np.testing.assert_array_equal(given.train.images, expected.train.images)
    np.testing.assert_array_equal(given.train.labels, expected.train.labels)
    assert given.class_names == NAMES


def test_without_a_test_split_a_stratified_share_is_held_out():
    dataset = mj.data.from_arrays(IMAGES[..., 0], LABELS, test_share=0.25)
    assert dataset.input_shape == (5, 4, 1)
    assert np.bincount(dataset.test.labels).tolist() == [1, 1, 1]
    assert {i.tobytes() for s in (dataset.train, dataset.test) for i in s.images} == {
        i.tobytes() for i in IMAGES[..., :1]
    }


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((IMAGES / 255, LABELS), {}, r"Training images must be uint8 .*; got float64 .* Scale floats"),
        ((IMAGES[0], LABELS[:1]), {}, "Training labels must be integers of shape"),
        ((IMAGES, LABELS[:3]), {}, r"Training labels must be integers of shape \[12\]"),
        ((IMAGES, LABELS - 1), {}, r"Training labels must lie in 0\.\.1048575; got values from -1 to 1"),
        ((IMAGES, LABELS + 2**22), {}, r"lie in 0\.\.1048575; got values from 4194304 to 4194306"),
        ((IMAGES, LABELS + 2**31), {}, r"lie in 0\.\.1048575; got values from 2147483648 to 2147483650"),
        ((IMAGES, LABELS.astype(np.uint64) + 2**63), {}, r"got values from 9223372036854775808 to"),
        ((IMAGES, np.array(["a", "b", "c"] * 4)), {}, r"Training labels must be integers .*; got <U1 of shape \(12,\)"),
        ((IMAGES, [None] * 12), {}, "Training labels must be integers .*; got object"),
        ((IMAGES, np.full(12, np.nan)), {}, "Training labels must be integers .*; got float64"),
        ((IMAGES, torch.zeros(12)), {}, "Training labels must be integers .*; got float32"),
        ((IMAGES, np.ma.masked_equal(LABELS, 0)), {}, "Training labels must be an array without a mask"),
        ((IMAGES, {}), {}, "Training labels must be an array, not dict"),
        (([[[0, 1]], [[0]]], LABELS[:2]), {}, "Training images must be an array; got a ragged list"),
        ((np.ma.masked_equal(IMAGES, 0), LABELS), {}, "Training images must be an array without a mask"),
        ((IMAGES, LABELS), {"class_names": 5}, "class_names must be a list with the name of every class.*; got 5"),
        ((IMAGES, LABELS), {"class_names": np.array("ant")}, r"class_names must be a list .*; got array\('ant'"),
        ((IMAGES, LABELS), {"class_names": set(NAMES)}, r"class_names must be a list .*; got \{'"),
        ((IMAGES, LABELS), {"class_names": dict.fromkeys(NAMES)}, r"class_names must be a list .*; got \{'ant'"),
        ((IMAGES, LABELS), {"class_names": ["a", "b"]}, r"Training labels must lie in 0\.\.1; got values from 0 to 2"),
        ((IMAGES, LABELS, IMAGES[:, :4], LABELS), {}, "must have one size; got 5 x 4 x 3 and 4 x 4 x 3"),
        ((IMAGES, LABELS, IMAGES), {}, "must be given together"),
    ],
)
@pytest.mark.usefixtures("as_a_user")
def test_arrays_that_do_not_fit_are_refused(arguments, options, sentence):
    with pytest.raises(InputError, match=sentence):
        mj.data.from_arrays(*arguments, **options)


def test_an_archive_is_loaded_by_name(tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=IMAGES, train_labels=LABELS, class_names=np.array(NAMES))
    dataset = mj.data.load(f"npz:{tmp_path}/mine.npz", limit=6)
    assert (dataset.name, dataset.class_names, len(dataset.train)) == ("mine", NAMES, 6)


@pytest.mark.parametrize("name", [f"folder:{NO_UTF8}", f"npz:{NO_UTF8}.npz"])
def test_a_path_or_class_that_is_not_utf8_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^The path of the data set, caf\\udce9.*, is not UTF-8 .*; choose another"):
        mj.data.load(name)
    for folder in ("ant", NO_UTF8):
        (tmp_path / "train" / folder).mkdir(parents=True)
        PIL.Image.fromarray(IMAGES[0]).save(tmp_path / "train" / folder / "0.png")
    with pytest.raises(InputError, match=r"^The name of the class, caf\\udce9, is not UTF-8 .*; choose another name"):
        mj.data.load(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", [f"folder:{'a' * 5000}", f"npz:{'a' * 5000}", "a" * 5000])
def test_a_path_or_name_that_is_too_long_is_refused(name):
    with pytest.raises(InputError, match=r"a{5000}\S* cannot be read.*File name too long"):
        mj.data.load(name)


@pytest.mark.parametrize("name", ["folder:~nobody-here/x", "npz:~nobody-here/x.npz"])
def test_the_home_directory_of_an_unknown_user_is_refused(name):
    with pytest.raises(InputError, match=r"^~nobody-here/x\S* begins with the home directory of an unknown user; give"):
        mj.data.load(name)


@pytest.mark.parametrize("split", ["validation", "val"])
def test_the_validation_arrays_of_an_archive_are_its_test_split_where_it_has_no_other(split, tmp_path):
    train = {"train_images": IMAGES[:6], "train_labels": LABELS[:6]}
    validation = {f"{split}_images": IMAGES[6:9], f"{split}_labels": LABELS[6:9]}
    np.savez(tmp_path / "a.npz", **train, **validation)
    dataset = mj.data.load(f"npz:{tmp_path}/a.npz")
    np.testing.assert_array_equal(dataset.train.images, IMAGES[:6])
    np.testing.assert_array_equal(dataset.test.images, IMAGES[6:9])
    np.savez(tmp_path / "b.npz", **validation)
    alone = mj.data.load(f"npz:{tmp_path}/b.npz")
    assert len(alone.train) == 0
    np.testing.assert_array_equal(alone.test.labels, LABELS[6:9])
    np.savez(tmp_path / "c.npz", **train, **validation, test_images=IMAGES[9:], test_labels=LABELS[9:])
    np.testing.assert_array_equal(mj.data.load(f"npz:{tmp_path}/c.npz").test.images, IMAGES[9:])


def test_an_archive_that_cannot_be_used_is_named(tmp_path):
    np.savez(tmp_path / "odd.npz", images=IMAGES)
    with pytest.raises(InputError, match=r"odd\.npz has no array train_images; it has images"):
        mj.data.load(f"npz:{tmp_path}/odd.npz")
    np.savez(tmp_path / "text.npz", train_images=IMAGES, train_labels=np.array(["ant"] * 12))
    with pytest.raises(InputError, match=r"Training labels must be integers .*; got <U3"):
        mj.data.load(f"npz:{tmp_path}/text.npz")
    np.savez(tmp_path / "named.npz", train_images=IMAGES, train_labels=LABELS, identifiers=LABELS)
    assert len(mj.data.load(f"npz:{tmp_path}/named.npz").train) > 0
    np.savez(tmp_path / "more.npz", train_images=IMAGES, train_labels=LABELS, tests_images=IMAGES)
    with pytest.raises(
        InputError, match=r"more\.npz has an array tests_images; expected only train_images, .*val_labels\.$"
    ):
        mj.data.load(f"npz:{tmp_path}/more.npz")
    with pytest.raises(InputError, match=r"none\.npz cannot be read"):
        mj.data.load(f"npz:{tmp_path}/none.npz")


def test_a_folder_is_read_pixel_by_pixel(tmp_path):
    dataset = mj.data.load(f"folder:{write(tmp_path / 'pets')}")
    assert (dataset.name, dataset.class_names) == ("pets", NAMES)
    order = np.argsort(LABELS[:9], kind="stable")
    np.testing.assert_array_equal(dataset.train.images, IMAGES[order])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[order])
    np.testing.assert_array_equal(dataset.test.images, IMAGES[9:])


def test_grey_images_have_one_channel_unless_others_have_colour(tmp_path):
    root = write(tmp_path, IMAGES[..., 0])
    assert mj.data.load(f"folder:{root}").input_shape == (5, 4, 1)
    PIL.Image.fromarray(IMAGES[0]).save(root / "train" / "ant" / "colour.png")
    mixed = mj.data.load(f"folder:{root}")
    assert mixed.input_shape == (5, 4, 3)
    np.testing.assert_array_equal(mixed.test.images[..., 1], IMAGES[9:, ..., 0])


def test_jpegs_and_folders_without_a_test_split_are_read(tmp_path):
    write(tmp_path, IMAGES[:9], ".jpeg")
    dataset = mj.data.load(f"folder:{tmp_path}")
    assert (len(dataset.train), len(dataset.test)) == (6, 3)


@pytest.mark.parametrize("split", ["validation", "val"])
def test_a_validation_folder_is_the_test_split_where_there_is_no_other(split, tmp_path):
    (write(tmp_path) / "test").rename(tmp_path / split)
    dataset = mj.data.load(f"folder:{tmp_path}")
    assert len(dataset.train) == 9
    np.testing.assert_array_equal(dataset.test.images, IMAGES[9:])
    write(tmp_path, IMAGES[:, ::-1])
    np.testing.assert_array_equal(mj.data.load(f"folder:{tmp_path}").test.images, IMAGES[9:, ::-1])


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG file, which Pillow cannot write in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_16_bits_are_refused(channels, tmp_path):
    deep = write(tmp_path) / "train" / "bee" / "04.png"
    deep.write_bytes(png_of_16_bits(np.full((5, 4, channels), 4095, np.uint16)))
    with pytest.raises(InputError, match=rf"{deep} has more than 8 bits per channel; save it with 8\."):
        mj.data.load(f"folder:{tmp_path}")


def test_hidden_files_and_files_that_are_no_images_are_ignored(tmp_path):
    root = write(tmp_path)
    for name in ("._00.png", ".cover.webp", "sizes.csv"):
        (root / "train" / "ant" / name).write_bytes(b"what is kept beside a file")
    assert len(mj.data.load(f"folder:{root}").train) == 9


def test_folders_that_cannot_be_used_name_the_file(tmp_path):
    def refused() -> str:
        with pytest.raises(InputError) as caught:
            mj.data.load(f"folder:{tmp_path}")
        return str(caught.value)

    assert "holds no folder 'train'" in refused()
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert "2 or more classes; found 1" in refused()
    (tmp_path / "train" / "bee").mkdir()
    assert re.search(r"train/ant holds no image \(\.png, \.jpg, \.jpeg\)", refused())
    write(tmp_path)
    damaged = tmp_path / "train" / "bee" / "04.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    assert f"{damaged} cannot be read as an image" in refused()
    PIL.Image.fromarray(IMAGES[0, :4]).save(damaged)
    assert "train/bee/04.png have different sizes (5 x 4 and 4 x 4)" in refused()
    PIL.Image.fromarray(IMAGES[0]).convert("RGBA").save(damaged)
    assert f"{damaged} has transparent pixels" in refused()
    damaged.write_bytes(content)
    (tmp_path / "test" / "dog").mkdir()
    assert "test/dog is a class that the training images do not have" in refused()


def test_a_test_split_of_which_images_cannot_be_read_is_not_replaced_by_training_images(tmp_path):
    write(tmp_path, IMAGES[:9])
    for folder in ("test", "test/bee"):
        (tmp_path / folder).mkdir()
        with pytest.raises(
            InputError, match=r"/test holds no image \(\.png, \.jpg, \.jpeg\) of any class; add some, or"
        ):
            mj.data.load(f"folder:{tmp_path}")
    for path in ("test/bee/0.WEBP", "train/ant/9.tif"):
        (tmp_path / path).touch()
        with pytest.raises(InputError, match=rf"/{path} is not read; convert it to one of \.png, \.jpg, \.jpeg, or"):
            mj.data.load(f"folder:{tmp_path}")


@pytest.mark.usefixtures("as_a_user")
def test_names_and_paths_of_another_kind_are_refused():
    images, labels = np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2
    for name in (None, 3, ["a"]):
        with pytest.raises(InputError, match=r"^The name of the data set must be a string, not"):
            mj.data.from_arrays(images, labels, name=name)
        for read in (mj.data.from_npz, mj.data.from_folder):
            with pytest.raises(InputError, match=r"^The path of the data set must be a string, not"):
                read(name)
