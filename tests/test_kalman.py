"""The bank of filters against filterpy's own filter and smoother, and what its several models are for."""

from __future__ import annotations

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter

from gpenvid.faces.kalman import UNSEEN, Bank
from gpenvid.faces.motion import MODELS, Motion

SPREAD = np.array([[0.3], [4.0], [9.0]])


def _step(bank: Bank, dt: float, measured: complex | None, variance: float, scale: float = 1.0) -> complex:
    shape = (bank.slots, bank.channels)
    bank.predict(dt, np.full(shape, scale))
    z, r = np.zeros(shape, complex), np.full(shape, UNSEEN)
    if measured is not None:
        z[:], r[:] = measured, variance
    return complex(bank.correct(z, r)[0, 0, 0])


@pytest.mark.parametrize("model", [Motion(0.5), Motion(300.0, memory=0.5), Motion(2.0, frequency=1.7)])
def test_one_model_is_filterpys_filter_and_smoother(model: Motion) -> None:
    rng = np.random.default_rng(0)
    steps = rng.uniform(0.01, 0.1, 40).round(6)
    path = rng.standard_normal(40).cumsum() + 1j * rng.standard_normal(40).cumsum()
    bank = Bank(1, (model,))
    slot = bank.claim(path[:1], SPREAD)
    axes = []
    for start in (path[0].real, path[0].imag):
        reference = KalmanFilter(3, 1)
        reference.x = np.array([[start], [0.0], [0.0]])
        reference.P = np.diag([0.3, 4.0, 9.0 if model.memory or model.frequency else 0.0])
        reference.H, reference.R = np.array([[1.0, 0, 0]]), np.array([[0.3]])
        axes.append(reference)
    history = []
    for k in range(1, 40):
        seen = k % 5 != 0
        _step(bank, steps[k], path[k] if seen else None, 0.3, scale=2.0)
        F, Q = model.discrete(steps[k])
        for axis, value in zip(axes, (path[k].real, path[k].imag), strict=True):
            axis.predict(F=F, Q=2 * Q)
            if seen:
                axis.update(value)
        state = bank.state()[:, slot, 0]
        np.testing.assert_allclose(state.real, axes[0].x[:, 0], atol=1e-9)
        np.testing.assert_allclose(state.imag, axes[1].x[:, 0], atol=1e-9)
        history.append((axes[0].x.copy(), axes[0].P.copy(), F, 2 * Q))
    xs, Ps, Fs, Qs = zip(*history, strict=True)
    smoothed = axes[0].rts_smoother(np.array(xs), np.array(Ps), Fs, Qs, inv=np.linalg.pinv)[0][:, 0, 0]
    np.testing.assert_allclose(bank.smooth(0, 39)[:, slot, 0].real, smoothed, atol=1e-9)


def test_two_half_steps_are_one_step() -> None:
    for model in MODELS:
        F, Q = model.discrete(0.04)
        half, noise = model.discrete(0.02)
        np.testing.assert_allclose(half @ half, F, atol=1e-12)
        np.testing.assert_allclose(half @ noise @ half.T + noise, Q, rtol=1e-9, atol=1e-15)


def _run(path: np.ndarray, models: tuple[Motion, ...], dt: float = 0.04) -> tuple[np.ndarray, np.ndarray]:
    """Return the causal and the smoothed error of a path of 1 px noise, the unit of motion being 70 px."""
    noisy = path + np.random.default_rng(3).standard_normal((len(path), 2)) @ [1, 1j]
    bank = Bank(1, models)
    bank.claim(noisy[:1], np.array([[1.0], [140.0**2], [1400.0**2]]))
    causal = [_step(bank, dt, z, 1.0, scale=70.0**2) for z in noisy[1:]]
    smooth = bank.smooth(0, len(path) - 1)[:, 0, 0]
    return np.abs(np.array(causal) - path[1:]), np.abs(smooth - path[1:])


def test_one_setting_is_steady_on_what_is_still_and_quick_on_what_is_shaken() -> None:
    t = np.arange(400) * 0.04
    still, shake = np.zeros(400) + 0j, 10 * np.sin(4 * np.pi * t) + 0j
    steady, quick = MODELS[:1], MODELS[-1:]
    rms = {
        (name, kind): float(np.sqrt((_run(path, models)[1] ** 2).mean()))
        for name, path in (("still", still), ("shake", shake))
        for kind, models in (("all", MODELS), ("steady", steady), ("quick", quick))
    }
    assert rms["still", "all"] < 1.2 * rms["still", "steady"] < 0.6 * rms["still", "quick"]
    assert rms["shake", "all"] < 1.2 * rms["shake", "quick"] < 0.3 * rms["shake", "steady"]


def test_hindsight_is_better() -> None:
    t = np.arange(400) * 0.04
    causal, smooth = _run(10 * np.sin(4 * np.pi * t) + 0j, MODELS)
    assert np.sqrt((smooth**2).mean()) < 0.6 * np.sqrt((causal**2).mean())


def test_what_is_retracted_was_never_measured() -> None:
    path = np.random.default_rng(1).standard_normal(20).cumsum() + 0j
    banks = [Bank(2), Bank(2)]
    for bank in banks:
        for start in (path[0], 50 + 0j):
            bank.claim(np.array([start, start]), np.repeat(SPREAD, 2, 1))
    for k in range(1, 20):
        for which, bank in enumerate(banks):
            bank.predict(0.04, np.ones((bank.slots, 2)))
            if which == 0 and k == 12:
                bank.retract(0, 3)
            z, r = np.full((bank.slots, 2), path[k]), np.full((bank.slots, 2), 0.3)
            if which == 1 and 9 <= k < 12:
                r[0] = UNSEEN
            bank.correct(z, r)
    np.testing.assert_allclose(banks[0].state(), banks[1].state(), atol=1e-12)
    np.testing.assert_allclose(banks[0].smooth(0, 19), banks[1].smooth(0, 19), atol=1e-12)


def test_a_copied_slot_has_the_same_history_and_another_future() -> None:
    path = np.random.default_rng(1).standard_normal(20).cumsum() + 0j
    copied, two = Bank(1), Bank(1)
    for bank in (copied, two, two):
        bank.claim(path[:1], SPREAD)
    for k in range(1, 20):
        for bank in (copied, two):
            bank.predict(0.04, np.ones((bank.slots, 1)))
            z, r = np.full((bank.slots, 1), path[k]), np.full((bank.slots, 1), 0.3)
            if bank is two and 9 <= k < 12:
                r[1] = UNSEEN
            bank.correct(z, r)
        if k == 11:
            assert [copied.since(ago) for ago in (0, 0.04, 0.1, 9)] == [1, 2, 3, 11]
            assert copied.copy(0) == 1
            copied.retract(1, copied.since(0.08))
    np.testing.assert_allclose(copied.state()[:, :2], two.state()[:, :2], atol=1e-12)
    np.testing.assert_allclose(copied.smooth(0, 19)[:, :2], two.smooth(0, 19)[:, :2], atol=1e-12)


def test_a_loosened_slot_goes_where_it_is_measured_and_is_not_smoothed_back() -> None:
    bank = Bank(1)
    bank.claim(np.zeros(1, complex), np.array([[0.01], [1.0], [1.0]]))
    for k in range(1, 40):
        bank.predict(0.04, np.ones((bank.slots, 1)))
        if k == 20:
            bank.loosen(0, np.array([[1e4], [1.0], [1.0]]))
        bank.correct(np.full((bank.slots, 1), 0j if k < 20 else 100 + 0j), np.full((bank.slots, 1), 0.01))
    smooth = bank.smooth(0, 39)[:, 0, 0].real
    np.testing.assert_allclose(smooth[:19], 0, atol=0.01)
    np.testing.assert_allclose(smooth[19:], 100, atol=0.01)


def test_a_model_may_come_and_go() -> None:
    """An oscillation that only the model that is there for a while knows: until then and after it the others do."""
    t = np.arange(150) * 0.04
    path = 10 * np.sin(4 * np.pi * t) + 0j
    noisy = path + np.random.default_rng(0).standard_normal((150, 2)) @ [1, 1j]
    errors = []
    for also in ((), (Motion(1.0, frequency=2.0),)):
        bank = Bank(1)
        bank.claim(noisy[:1], np.array([[1.0], [140.0**2], [1400.0**2]]))
        ahead = []
        for k in range(1, 150):
            ahead.append(bank.predict(0.04, np.full((bank.slots, 1), 70.0**2), also if 40 <= k < 120 else ())[0, 0])
            if k in (50, 121):
                bank.retract(0, 15)
            z, r = np.full((bank.slots, 1), noisy[k]), np.full((bank.slots, 1), 1.0)
            bank.correct(z, r)
            if k in (45, 130):  # new slots, also before a model that came or went
                for _ in range(4):
                    bank.claim(np.zeros(1, complex), SPREAD)
                assert np.isfinite(bank.smooth(0, k)).all()
        smooth = bank.smooth(0, 149)[:, 0, 0]
        errors.append([np.abs(np.array(ahead) - path[1:])[70:119].mean(), np.abs(smooth - path[1:])[70:110].mean()])
    assert errors[1][0] < 0.5 * errors[0][0] and errors[1][1] < 0.8 * errors[0][1]


def test_slots_are_independent_and_reused() -> None:
    bank = Bank(1)
    first = bank.claim(np.array([5 + 0j]), SPREAD)
    _step(bank, 0.04, 5, 0.1)
    others = [bank.claim(np.array([100j * k]), SPREAD) for k in range(1, 7)]
    assert len({first, *others}) == 7
    _step(bank, 0.04, None, 0.1)
    assert bank.state()[0, others, 0] == pytest.approx([100j * k for k in range(1, 7)])
    assert bank.state()[0, first, 0] == pytest.approx(5, abs=0.1)
    bank.release(others[2])
    assert bank.claim(np.array([7j]), SPREAD) == others[2]
    assert bank.state()[0, others[2], 0] == pytest.approx(7j)
