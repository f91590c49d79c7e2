"""Whatever an option is given, the answer is one line or it is taken; nothing else comes of it."""

from __future__ import annotations

import hydra
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from clothseg import entry, train
from clothseg.settings import TrainSettings, check

MANNERS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What text of a configuration may be taken for.
TRICKY = (
    "",
    " ",
    "null",
    "nan",
    "???",
    "${",
    "${name}",
    "${none}",
    "${oc.env:NONE}",
    "{}",
    "[",
    "1e999",
    "\0",
    "服",
    "a\nb",
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([-(10**30), 2**31, 2**63, 10**30, 10**100]),
    st.floats(),
    st.sampled_from(TRICKY),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(0, 3), inner, max_size=2)
    ),
    max_leaves=4,
)


def compose(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(entry.config_folder())):
        return hydra.compose("train", ["experiment=quickstart", *overrides])


@pytest.fixture(scope="module")
def quickstart() -> DictConfig:
    cfg = compose()
    OmegaConf.set_struct(cfg, False)
    return cfg


def places(cfg: DictConfig, above: str = "") -> list[str]:
    """Every option and every section, by its dotted name."""
    found = []
    for key in cfg:
        found.append(f"{above}{key}")
        if OmegaConf.is_dict(cfg) and OmegaConf.is_dict(cfg[key]):
            found += places(cfg[key], f"{above}{key}.")
    return found


PLACES = places(compose())


def taken(cfg: DictConfig) -> bool:
    """Whether an entry point goes on with a configuration, up to where TensorFlow is loaded; else it has told why."""
    try:
        checked = check(cfg, TrainSettings)
        train._check_together(checked)
        entry.build(cfg.dataset)
    except Exception as error:
        told = entry.told(error)
        if told is None:
            raise
        assert told and "\n" not in told, told
        assert len(told) < 1000, told
        return False
    return True


# What a training builds of the configuration, and calls with what it knows; each with all its choices.
PARTS = ("augmentation", "decoder", "learning_rate", "loss", "optimizer", "sampling")
CHOICES = [f"{part}={path.stem}" for part in PARTS for path in sorted((entry.config_folder() / part).glob("*.yaml"))]
CHOICES.remove("loss=sum")  # which has no terms of its own; cross_entropy_lovasz is a sum


def made(cfg: DictConfig, part: str) -> bool:
    """Whether a part is made, as in a training; else it has been told why not."""
    from clothseg import assemble

    pixels = np.array([[90, 10, 0], [80, 0, 20]])
    try:
        if part == "loss":
            assemble.loss(cfg, pixels=pixels)
        else:
            built = entry.build(cfg[part])
            if part == "learning_rate":
                entry.call(cfg.learning_rate, built, 0.001, 20)
            elif part == "sampling":
                entry.call(cfg.sampling, built, pixels)
            elif part == "optimizer":
                entry.call(cfg.optimizer, built)
    except Exception as error:
        told = entry.told(error)
        if told is None:
            raise
        assert told and "\n" not in told, told
        return False
    return True


@pytest.mark.parametrize("choice", CHOICES)
def test_any_value_in_a_part_is_taken_or_told_on_one_line(choice):
    part = choice.partition("=")[0]
    with hydra.initialize_config_dir(str(entry.config_folder())):
        composed = hydra.compose("train", [choice])
    OmegaConf.set_struct(composed, False)
    assert made(composed.copy(), part)

    @settings(MANNERS, max_examples=12)
    @given(st.sampled_from(places(composed[part])), VALUES)
    def wrong(place, value):
        cfg = composed.copy()
        try:
            OmegaConf.update(cfg, f"{part}.{place}", value, merge=False, force_add=True)
        except Exception as error:
            assert isinstance(error, (ValueError, TypeError)) or entry.told(error) is not None
            return
        made(cfg, part)

    wrong()


def test_what_the_experiment_says_is_taken(quickstart):
    assert taken(quickstart.copy())


@pytest.mark.parametrize("place", PLACES)
def test_any_value_is_taken_or_told_on_one_line(quickstart, place):
    @settings(MANNERS, max_examples=8)
    @given(VALUES)
    def wrong(value):
        cfg = quickstart.copy()
        try:
            OmegaConf.update(cfg, place, value, merge=False, force_add=True)
        except Exception as error:
            # What no file and no command line can say.
            assert isinstance(error, (ValueError, TypeError)) or entry.told(error) is not None
            return
        taken(cfg)

    wrong()


@settings(MANNERS, max_examples=40)
@given(st.sampled_from(PLACES), st.sampled_from(TRICKY) | st.text(max_size=12), st.sampled_from(("", "+", "++", "~")))
def test_any_text_on_the_command_line_is_taken_or_told_on_one_line(place, text, sign):
    try:
        cfg = compose(f"{sign}{place}={text}")
    except Exception as error:
        told = entry.told(error)
        # Hydra's own complaints about the command line, which `entry.run` puts on one line.
        assert told is not None or isinstance(error, ValueError), repr(error)
        assert told is None or (told and "\n" not in told)
        return
    taken(cfg)
