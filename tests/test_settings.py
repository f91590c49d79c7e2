"""Values of options are what they are written as."""

from __future__ import annotations

import hydra
import pytest
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.errors import UserError
from clothseg.settings import TrainSettings, check


@pytest.fixture(scope="module")
def train():
    with hydra.initialize_config_dir(str(entry.config_folder())):
        cfg = hydra.compose("train")
    OmegaConf.set_struct(cfg, False)
    return cfg


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("batch_size", True, "batch_size=True: input should be a valid integer"),
        ("batch_size", "8", "batch_size=8: input should be a valid integer"),
        ("batch_size", 8.0, "batch_size=8.0: input should be a valid integer"),
        ("seed", "0", "seed=0: input should be a valid integer"),
        ("threads", True, "threads=True: input should be a valid integer"),
        ("deterministic", 1, "deterministic=1: input should be a valid boolean"),
        ("evaluation.flip", "yes", "evaluation.flip=yes: input should be a valid boolean"),
        ("presence.weight", True, "presence.weight=True: input should be a valid number"),
        ("schedule.phases.frozen.steps_per_epoch", True, "schedule.phases.frozen.steps_per_epoch=True:"),
        ("batch_size", 10**30, "batch_size=1000000000000000000000000000000: "),
        ("prepare.workers", 2**31, "prepare.workers=2147483648: input should be less than 2147483648"),
        ("image_size", [64, 10**6], "image_size.1=1000000: input should be less than or equal to 8192"),
        ("presence.weight", float("inf"), "presence.weight=inf: input should be a finite number"),
        ("presence.weight", float("nan"), "presence.weight=nan: input should be a finite number"),
        ("output", "a\0b", "output='a\\x00b': text has a character that is none in UTF-8"),
        ("tracking.tags", {"a": ["\udce9"]}, "tracking.tags.a.0='\\udce9': text has a character"),
    ],
)
def test_what_is_of_another_type_is_refused(train, option, value, told):
    cfg = train.copy()
    OmegaConf.update(cfg, option, value)
    with pytest.raises(UserError) as error:
        check(cfg, TrainSettings)
    assert str(error.value).startswith(told)


def test_whole_numbers_are_numbers(train):
    cfg = train.copy()
    cfg.presence.weight = 1
    assert check(cfg, TrainSettings).presence.weight == 1.0
