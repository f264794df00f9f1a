"""Malformed descriptions of data sets, banks, policies and settings of training: one clear error each, which names the
file or the argument, and nothing is changed by it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adafocus_env import FeatureBank, Recognizer, RoamingFashion, load_recognizer
from adafocus_env.features.bank_file import MAGIC, BankFile
from adafocus_env.recognition.recipes import Stage0Config, Stage1Config, Stage3Config
from adafocus_env.videos import get_videos
from agents import evaluate, finetune, from_pretrained, load_policy
from agents.baselines import RandomPolicy

NAN, INF = float("nan"), float("inf")

# ------------------------------------------------------------------------------------- descriptions of data sets

GOOD = {
    "root": '"frames"', "train_list": '"list.txt"', "test_list": '"list.txt"', "num_classes": "3", "num_frames": "2",
    "frame_size": "16", "resized": "20",
}  # fmt: skip
VALUES = {
    "root": (["3", "true", '["frames"]', '"nowhere"', '"list.txt"'], "root|no folder of videos at .*data.(now|list)"),
    "train_list": (['["list.txt"]', "{ a = 1 }"], "strings.*train_list"),
    "test_list": (["7", "1979-05-27", '"nowhere.txt"', '"frames"'], "test_list|no list file at .*(nowhere|frames)"),
    "num_classes": (["0", "-1", '"3"', "3.0", "true", "[3]", "nan", "10000000000"], "num_classes must be an integer"),
    "num_frames": (
        ["0", "-2", '"2"', "2.5", "true", "[]", "[0]", '["a"]', "[2, 2.5]", "[true]", "1000000"], "num_frames.* must be"
    ),
    "frame_size": (["0", "-16", '"16"', "16.5", "true", "99", "[16]"], "frame_size must be an integer"),
    "resized": (["0", "-1", '"20"', "20.5", "true", "1000000"], "resized must be an integer"),
    "class_names": (['"abc"', '["a"]', "[1, 2, 3]", "3", "{ a = 1 }"], "class_names must be"),
    "template": (["3", '"image.jpg"', '"{}{}"', '"{:q}"', '"{x}"', '["{}.jpg"]', '"{"'], "template"),
    "repeat": (['"never"', "3", '["last"]'], "repeat must be one of"),
    "resize": (['"cv2"', "3", "true"], "resize must be one of"),
    "separator": (['";"', "3", '""'], "separator must be one of"),
    "multi_label": (['"yes"', "1", "[true]"], "multi_label must be True, False or None"),
    "flip": (['"no"', "1", "[]"], "flip must be True or False"),
    "separate_crops": (['"no"', "0"], "separate_crops must be True or False"),
    "seed": (["-1", '"a"', "1.5", "true"], "seed must be an integer of at least 0"),
    "num_workers": (["-1", '"two"', "2.5", "true", "1000000"], "num_workers must be an integer"),
    "processes": (['"yes"', "1"], "processes must be True or False"),
    "on_error": (['"Raise"', "3", "true"], "on_error must be one of"),
    "kind": (['"frame"', "3", "true", '["frames"]', '""'], "kind must be one of"),
    "training": (["true"], r"unknown \['training'\]; known are"),
    "keep": (['"x"'], r"unknown \['keep'\]; known are"),
    "Root": (['"frames"'], r"unknown \['Root'\]; known are"),
}  # fmt: skip
"""Values that an argument can't have, and what is said of them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root") / "data"
    for video in range(3):
        (root / "frames" / f"v{video}").mkdir(parents=True)
        for number in range(1, 4):
            Image.new("RGB", (20, 20)).save(root / "frames" / f"v{video}" / f"image_{number:05d}.jpg")
    (root / "list.txt").write_text("".join(f"v{video}, 3, {video}\n" for video in range(3)))
    return root


def describe(folder: Path, values: dict[str, str]) -> Path:
    path = folder / "data.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return path


def test_the_good_description_is_good(data: Path) -> None:
    assert len(get_videos(str(describe(data, GOOD)), "test")) == 3


@pytest.mark.parametrize(
    ("key", "value", "message"), [(key, value, text) for key, (values, text) in VALUES.items() for value in values]
)
def test_descriptions_with_a_wrong_value(key: str, value: str, message: str, data: Path) -> None:
    path = describe(data, {**GOOD, key: value})
    with pytest.raises((ValueError, FileNotFoundError), match=rf"(?s){message}") as raised:
        get_videos(str(path), "train" if key == "train_list" else "test")
    assert str(path) in str(raised.value) or isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize("key", ["root", "train_list", "test_list", "num_classes"])
def test_descriptions_that_lack_something(key: str, data: Path) -> None:
    path = describe(data, {name: value for name, value in GOOD.items() if name != key})
    with pytest.raises(ValueError, match=rf"data\.toml: \['{key}'\] must be given"):
        get_videos(str(path), "test")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", 'root = "é"'.encode("latin-1"), b"<html>", b"root = frames", b'{"root": "frames"}',
     b"root = 'a'\nroot = 'b'", b"[root", b"PK\3\4", bytes(100), "root: frames\n".encode("utf-16")],
)  # fmt: skip
def test_files_that_are_no_description(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.toml( is not a TOML file|: \[.*'num_classes'.*\] must be given)"):
        get_videos(str(path), "test")


@pytest.mark.parametrize("name", ["folder.toml", "nowhere.toml", "file/x.toml", ".toml"])
def test_places_without_a_description(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=f"no description of a data set at .*{name}"):
        get_videos(str(tmp_path / name), "test")


# ----------------------------------------------------------------------------------------------------------- banks


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, recognizer: Recognizer, videos: RoamingFashion) -> bytes:
    """A full bank's file."""
    path = tmp_path_factory.mktemp("bank") / "bank"
    full = FeatureBank(recognizer, videos, 4, path=path)
    full.build()
    full.close()
    return path.read_bytes()


def with_header(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def changed(bank: bytes) -> bytes:
        header = json.loads(bank[len(MAGIC) : 4096])
        text = json.dumps(change(header), sort_keys=True).encode()
        return MAGIC + text.ljust(4096 - len(MAGIC)) + bank[4096:]

    return changed


def with_identity(**values: Any) -> Callable[[bytes], bytes]:
    return with_header(lambda header: {**header, "identity": {**header["identity"], **values}})


def with_bytes(place: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda bank: bank[:place] + new + bank[place + len(new) :]


def with_counters(*counters: int) -> Callable[[bytes], bytes]:
    return with_bytes(4096, np.array(counters, dtype=np.int64).tobytes())


BANKS: list[tuple[str, list[Callable[[bytes], bytes]]]] = [
    ("is no feature bank of this version", [
        lambda bank: b"", lambda bank: bank[:10], lambda bank: b"something else", lambda bank: bytes(len(bank)),
        lambda bank: b"\x93NUMPY" + bytes(10_000), with_bytes(3, b"F"), with_bytes(22, b"2"),
    ]),
    ("has a damaged header", [
        lambda bank: bank[: len(MAGIC)], lambda bank: bank[:100], with_bytes(60, b"\xff\xfe"),
        with_bytes(len(MAGIC), b"["), with_header(lambda header: [1]), with_header(lambda header: None),
        with_header(lambda header: {"arrays": header["arrays"]}), with_header(lambda header: {**header, "arrays": 3}),
        with_header(lambda header: {**header, "identity": ["grid"]}),
    ]),
    ("was cut short", [
        lambda bank: bank[:4096], lambda bank: bank[:4104], lambda bank: bank[: len(bank) // 2],
        lambda bank: bank[:-1], lambda bank: bank + b"\0",
    ]),
    ("was filled for another", [
        with_identity(recognizer="other"), with_identity(videos=None), with_identity(grid=5), with_identity(grid="4"),
        with_identity(dtype="float16"), with_identity(precision=[]), with_identity(more=1),
        with_header(lambda header: {**header, "arrays": {}}), with_header(lambda header: {**header, "more": 1}),
        with_header(lambda header: {**header, "identity": {}}),
    ]),
    (r"counts \[.*\] rows as filled, of \[12, 768\]: it is damaged", [
        with_counters(-1, 768), with_counters(12, -1), with_counters(13, 768), with_counters(5, 769),
        with_counters(2**62, 2**62), with_counters(-(2**63), 0),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("message", "change"), [(text, change) for text, changes in BANKS for change in changes])
def test_banks_that_are_not_whole_or_not_ours(
    message: str, change: Callable[[bytes], bytes], bank: bytes, recognizer: Recognizer, videos: RoamingFashion,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = tmp_path / "bank"
    path.write_bytes(change(bank))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"bank .*{message}"):
        FeatureBank(recognizer, videos, 4, path=path)
    with pytest.raises(ValueError, match=r"\w"):
        FeatureBank.open(path, recognizer, videos)
    assert path.read_bytes() == before
    path.write_bytes(bank)
    assert FeatureBank(recognizer, videos, 4, path=path).full  # no lock is left behind


@pytest.mark.parametrize("change", [
    with_identity(grid="4"), with_identity(grid=-1), with_identity(grid=5), with_identity(dtype="int8"),
    with_identity(dtype=[1]), with_identity(precision="float64"), with_identity(videos="other"),
])  # fmt: skip
def test_banks_to_open_by_what_they_say(
    change: Callable[[bytes], bytes], bank: bytes, recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    (tmp_path / "bank").write_bytes(change(bank))
    with pytest.raises(ValueError, match=r"must be|was filled for another"):
        FeatureBank.open(tmp_path / "bank", recognizer, videos)


def test_a_bank_of_another_kind(recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path) -> None:
    """Such as a ResolutionBank's, which has no grid."""
    arrays = {"filled": ((2,), torch.int64)}
    identity = {"recognizers": {"1.0": "a"}, "videos": "b", "precision": "float32"}
    BankFile(tmp_path / "bank", identity, arrays, total=(1, 0)).close()
    with pytest.raises(ValueError, match=r"bank of another kind, .*not on \['dtype', 'grid'\]"):
        FeatureBank.open(tmp_path / "bank", recognizer, videos)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("folder", IsADirectoryError, "Is a directory: '.*folder'"),
        ("file/bank", FileExistsError, "File exists: '.*file'$"),
        ("x" * 300, OSError, "File name too long"),
    ],
)
def test_places_where_no_bank_can_be(
    name: str, error: type[Exception], message: str, recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=message):
        FeatureBank(recognizer, videos, 4, path=tmp_path / name)
    with pytest.raises((FileNotFoundError, OSError), match=name[:100]):
        FeatureBank.open(tmp_path / name, recognizer, videos)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_to(
    bank: bytes, recognizer: Recognizer, videos: RoamingFashion, tmp_path: Path
) -> None:
    (tmp_path / "full").write_bytes(bank)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)):
        FeatureBank(recognizer, videos, 4, path=tmp_path / "bank")
    assert FeatureBank(recognizer, videos, 4, path=tmp_path / "full").full


# --------------------------------------------------------------------------------------------- names and policies


@pytest.mark.parametrize("name", ["", "nothing", "Random", "random ", "roaming-fashion.pt", ".", "/", "a\0b", "ppo.zip",
                                  "x.pth.tar", "roaming-fashion-skip.zip", Path("nowhere") / "policy.pt"])  # fmt: skip
@pytest.mark.parametrize("load", [from_pretrained, load_policy, load_recognizer])
def test_names_of_nothing(load: Callable[[Any], Any], name: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"is neither a file nor one of the shipped ones: .*'roaming-fashion'"):
        load(name)


@pytest.mark.parametrize("name", [3, None, ["random"], b"random", NAN, RandomPolicy])
@pytest.mark.parametrize("load", [from_pretrained, load_policy, load_recognizer])
def test_what_is_no_name(load: Callable[[Any], Any], name: Any) -> None:
    with pytest.raises(ValueError, match=r"(policy|recognizer) must be a name or a path, not"):
        load(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("policy.pt", "can't be read safely as a policy"), ("ppo.zip", "is damaged, or PPO.save didn't write it"),
        ("ppo-cut.zip", "is damaged, or PPO.save"), ("a2c-empty.zip", "is damaged, or A2C.save"),
        ("dqn-archive.zip", "is damaged, or DQN.save"), ("sac.zip", "must begin with its algorithm's"),
        ("model.zip", "must begin with its algorithm's"), ("policy.pth.tar", "lacks"),
    ],
)  # fmt: skip
def test_files_that_are_no_policies(name: str, message: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "some.pt")
    path, shipped = tmp_path / name, (tmp_path / "some.pt").read_bytes()
    content = {"policy.pt": b"nothing", "ppo-cut.zip": shipped[:1000], "a2c-empty.zip": b""}
    path.write_bytes(content.get(name, shipped))
    if name == "dqn-archive.zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", "{}")
    with pytest.raises(ValueError, match=message) as raised:
        load_policy(path)
    assert name in str(raised.value)


# ------------------------------------------------------------------------------------------------------- training

SETTINGS = {
    "videos_per_step": ("an integer of at least 1", [0, -3, 1.5, "a", True, None]),
    "optimizer": ("one of", ["adam", 3, None]),
    "schedule": ("one of", ["linear", ["cosine"]]),
    "precision": ("one of", ["float8", None]),
    "weight_decay": ("a finite number of at least 0", [-1, NAN, INF, "a"]),
    "epochs": ("an integer of at least 0", [-1, 1.5, "a", True, INF]),
}
OF_STAGES = [
    (
        Stage0Config,
        {"learning_rate": [-1, NAN, "a"], "covered": [0, 1.5], "global_steps": [-1, 0.5], "local_steps": [""]},
    ),
    (Stage1Config, {"steps": [-1, 2.0], "local_learning_rate": [INF], "classifier_learning_rate": [-1e-9, None]}),
    (Stage3Config, {"local_learning_rate": [-1, True], "classifier_learning_rate": [[1e-3], NAN], "epochs": [None]}),
]


@pytest.mark.parametrize("stage", [Stage0Config, Stage1Config, Stage3Config])
@pytest.mark.parametrize(
    ("name", "allowed", "value"),
    [(name, allowed, value) for name, (allowed, values) in SETTINGS.items() for value in values],
)
def test_settings_of_every_stage(stage: type, name: str, allowed: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be {allowed}"):
        stage(**{name: value})


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [(stage, name, value) for stage, names in OF_STAGES for name, values in names.items() for value in values],
)
def test_settings_of_a_stage(stage: type, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        stage(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("recognizer", value) for value in (None, 3, "roaming-fashion", Recognizer, RandomPolicy)),
        *(("policy", value) for value in (None, 3, "random", object(), lambda env: None, lambda env: 3)),
        *(("rollouts", value) for value in (0, -1, 1.5, "a", True)),
        *(("seed", value) for value in (-1, 1.5, "a")),
        *(("config", value) for value in (3, {"epochs": 1}, Stage1Config())),
        *(("split", value) for value in ("testing", 3)),
        *(("videos", value) for value in ("nothing", 3)),
    ],
)
def test_arguments_of_finetune(name: str, value: Any, recognizer: Recognizer, videos: RoamingFashion) -> None:
    good = {"recognizer": recognizer, "policy": RandomPolicy, "config": Stage3Config(epochs=1), "videos": videos}
    with pytest.raises(ValueError, match=f"^{name} must"):
        finetune(**{**good, "grid": 4, name: value})


@pytest.mark.parametrize("policy", [None, 3, "random", object(), lambda env: None, lambda env: "center"])
def test_what_is_no_policy_to_evaluate(policy: Any, env_kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^policy must have SB3's predict"):
        evaluate(policy, "val", **env_kwargs)


@pytest.mark.parametrize(
    ("name", "value"),
    [("env_id", "AdaFocus"), ("env_id", 3), ("recognizer", 3), ("features", 3), ("features", "bank"), ("split", "all")],
)
def test_wrong_arguments_of_evaluate(name: str, value: Any, env_kwargs: dict[str, Any]) -> None:
    given = {} if name == "features" else env_kwargs
    with pytest.raises(ValueError, match=f"^{name} must be"):
        evaluate(RandomPolicy, **{"split": "val", **given, name: value})
