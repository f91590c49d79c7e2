"""Whatever an option is given, the answer is one line or it is taken; nothing else comes of it."""

from __future__ import annotations

import hydra
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
