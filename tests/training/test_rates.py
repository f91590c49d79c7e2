"""Learning rates rise, peak and fall where they are told to."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.errors import UserError
from clothseg.training.rates import constant, cosine, one_cycle, polynomial, scaled, shifted

PEAK = 0.5


def values(rate, steps) -> list[float]:
    return [float(keras.ops.convert_to_numpy(rate(step))) for step in steps]


def test_constant_is_the_peak_as_a_float():
    assert constant(1, 100) == 1.0
    assert isinstance(constant(1, 100), float)


def test_cosine_warms_up_along_a_line_and_falls_to_its_floor():
    # 4 of 12 steps rise: 1/5, 2/5, 3/5, 4/5 of the peak. The other 8 are half a cosine down to a tenth of the peak.
    rate = cosine(PEAK, 12, warmup=1 / 3, floor=0.1)
    assert values(rate, range(4)) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    falling = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * s / 8)) / 2) for s in range(9)]
    assert falling[4] == pytest.approx(0.5 * 0.55)
    assert values(rate, range(4, 13)) == pytest.approx(falling)


def test_polynomial_falls_with_its_power():
    assert values(polynomial(PEAK, 4, warmup=0.0, power=1.0, floor=0.0), range(5)) == pytest.approx(
        [0.5, 0.375, 0.25, 0.125, 0], abs=1e-7
    )
    # 0.1 + 0.4 * (1 - s / 4) ** 2 after one step of warm-up at half the peak.
    assert values(polynomial(PEAK, 5, warmup=0.2, power=2.0, floor=0.2), range(6)) == pytest.approx(
        [0.25, 0.5, 0.325, 0.2, 0.125, 0.1]
    )


def test_one_cycle_is_two_halves_of_a_cosine():
    rate = one_cycle(PEAK, 10, warmup=0.4, initial=0.04, final=0.01)
    # As PyTorch's OneCycleLR anneals: end + (start - end) / 2 * (1 + cos(pi * share)).
    rising = [0.5 + (0.02 - 0.5) / 2 * (1 + math.cos(math.pi * s / 4)) for s in range(4)]
    falling = [0.005 + (0.5 - 0.005) / 2 * (1 + math.cos(math.pi * s / 6)) for s in range(7)]
    assert rising[0] == pytest.approx(0.02) and falling[-1] == pytest.approx(0.005)
    assert values(rate, range(11)) == pytest.approx(rising + falling)


@pytest.mark.parametrize(
    "rate",
    [
        cosine(PEAK, 20, warmup=0.25, floor=0.1),
        polynomial(PEAK, 20, warmup=0.25, power=0.9, floor=0.1),
        one_cycle(PEAK, 20, warmup=0.25, initial=0.1, final=0.1),
    ],
    ids=["cosine", "polynomial", "one_cycle"],
)
def test_schedules_peak_once_stay_at_their_end_and_survive_saving(rate):
    seen = values(rate, range(31))
    assert seen[5] == pytest.approx(PEAK)
    assert all(a < b for a, b in zip(seen[:5], seen[1:6], strict=True))
    assert all(a > b for a, b in zip(seen[5:20], seen[6:21], strict=True))
    assert seen[20:] == pytest.approx([0.1 * PEAK] * 11)
    schedules = keras.optimizers.schedules
    loaded = schedules.deserialize(schedules.serialize(shifted(rate, 3)))
    assert values(loaded, range(10)) == pytest.approx(seen[3:13])


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_trainings_have_a_rate(steps):
    for rate in (
        cosine(PEAK, steps, warmup=0.9, floor=0.0),
        polynomial(PEAK, steps, warmup=0.9, power=0.9, floor=0.0),
        one_cycle(PEAK, steps, warmup=0.9, initial=0.1, final=0.0),
    ):
        assert all(0 < value <= PEAK for value in values(rate, range(steps)))


def test_a_schedule_goes_on_under_an_optimizer_that_counts_from_zero():
    rate = polynomial(1.0, 10, warmup=0.0, power=1.0, floor=0.0)
    weight = keras.Variable(0.0)
    for first_step in (0, 4):
        optimizer = keras.optimizers.SGD(shifted(rate, first_step))
        for _ in range(4):
            optimizer.apply([np.float32(1)], [weight])
    # 1 + 0.9 + ... + 0.3
    assert float(keras.ops.convert_to_numpy(weight)) == pytest.approx(-5.2)
    assert shifted(0.1, 4) == 0.1


def test_a_rate_times_a_factor_keeps_its_course():
    falling = cosine(0.1, 10, warmup=0.2, floor=0.0)
    lower = scaled(falling, 0.25)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(lower))
    for step in range(12):
        assert float(lower(step)) == float(again(step)) == pytest.approx(0.25 * float(falling(step)))
    assert scaled(0.1, 0.5) == 0.05 and scaled(falling, 1) is falling


def test_wrong_values_are_told():
    with pytest.raises(UserError, match=r"learning_rate\.warmup=1\.0 has to be a share of the steps"):
        cosine(PEAK, 10, warmup=1.0, floor=0.0)
    with pytest.raises(UserError, match=r"learning_rate\.floor=-0\.1 has to be a share of the peak"):
        polynomial(PEAK, 10, warmup=0.1, power=1.0, floor=-0.1)
    with pytest.raises(UserError, match=r"learning_rate\.power=0 has to be a number above 0"):
        polynomial(PEAK, 10, warmup=0.1, power=0, floor=0.0)
    with pytest.raises(UserError, match=r"learning_rate\.initial=0\.0 leaves nothing to rise from"):
        one_cycle(PEAK, 10, warmup=0.1, initial=0.0, final=0.0)
    with pytest.raises(UserError, match=r"learning_rate=0 has to be a number above 0"):
        constant(0, 10)
    with pytest.raises(UserError, match="over 0 steps"):
        constant(PEAK, 0)


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial", "one_cycle"])
def test_what_can_be_chosen_works(name):
    with execution_whitelist(entry.TARGETS):
        rate = entry.build(OmegaConf.load(entry.config_folder() / "learning_rate" / f"{name}.yaml"))(PEAK, 100)
    seen = [rate] if name == "constant" else values(rate, range(100))
    assert max(seen) == pytest.approx(PEAK)
    assert min(seen) > 0
