"""The generator of noise: its published vectors, its law, and that no two draws are alike."""

import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from fcfn_abm.dp import philox
from fcfn_abm.dp.noise import node_noise
from fcfn_abm.dp.philox import LARGEST, fill_gaussian, philox_words
from fcfn_abm.errors import InvalidPrivacyError

FALSE_ALARM = 1e-6  # of each statistical test; seeds are fixed
ONES = 0xFFFFFFFF


def gaussian(n, *, std=1.0, key=(1, 2), counter=(0, 3, 4)):
    out = np.empty(n, dtype=np.float32)
    fill_gaussian(out, std, key, counter)
    return out


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_its_words_are_the_published_ones(counter, key, words):
    # kat_vectors of Random123, philox4x32 10
    found = philox_words(key, counter, 1)[:, 0]
    assert " ".join(f"{word:08x}" for word in found.tolist()) == words


def test_counters_count_up_one_by_one():
    counted = philox_words((5, 6), (7, 8, 9, 10), 100)
    one_by_one = [philox_words((5, 6), (7 + i, 8, 9, 10), 1)[:, 0] for i in range(100)]
    assert_array_equal(counted.T, one_by_one)


def by_hand(words):
    """Box and Muller in 64 bits: what the 32-bit polynomials approximate."""
    radius, angle = words[0].astype(float), words[1]
    uniform = radius * 2.0**-32 + ((angle & 0xFF) + 0.5) * 2.0**-40
    length = np.sqrt(-2 * np.log(uniform))
    t = ((angle.view(np.int32) >> 10) + 0.5) * 2.0**-21 * np.pi / 4
    x, y = length * np.cos(t) * np.where(angle & 0x100, -1, 1), length * np.sin(t)
    swapped = (angle & 0x200) > 0
    return np.where(swapped, y, x), np.where(swapped, x, y)


def transformed(radius, angle):
    words = np.array([radius, angle], dtype=np.uint32)
    uniform, cosine, sine = np.empty((3, words.shape[1]), dtype=np.float32)
    philox._transform(words[0], words[1], uniform, cosine, sine, np.float32(1))
    return words, cosine, sine


def test_numbers_are_what_box_and_muller_make_of_the_words():
    rng = np.random.default_rng(1)
    words, *found = transformed(*rng.integers(0, 2**32, (2, 200_000), dtype=np.uint32))
    for ours, exact in zip(found, by_hand(words), strict=True):
        assert_allclose(ours, exact, rtol=2e-6, atol=4e-7)


def test_no_radius_loses_its_digits_near_the_ends():
    smallest, largest = [0, 1, 2, 255], [ONES, ONES - 1, ONES - 200, 0xB504F333, 0xB504F334]
    radius = np.array(smallest + largest, dtype=np.uint32)
    angle = np.full(radius.size, 0, dtype=np.uint32)
    words, cosine, sine = transformed(radius, angle)
    length = np.hypot(cosine.astype(float), sine)
    exact = np.hypot(*by_hand(words))
    far = radius < 2**31
    assert_allclose(length[far], exact[far], rtol=1e-6)
    assert_allclose(length[~far], exact[~far], rtol=1e-6, atol=2e-5)  # to 2**-32 of a uniform one
    assert (length > 0).all()
    assert_allclose(length.max(), LARGEST, rtol=1e-6)
    assert LARGEST > 7.5


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn():
    whole = gaussian(10_001)
    for n in (0, 1, 3, 2047, 2048, 2049, 4096):
        assert_array_equal(gaussian(n), whole[:n])


def test_the_spread_is_a_factor():
    assert_array_equal(gaussian(5000, std=0.25), 0.25 * gaussian(5000))
    assert (gaussian(5000, std=0.0) == 0).all()


@pytest.mark.parametrize("word", [-1, 2**32])
def test_words_of_more_than_32_bits_are_refused(word):
    with pytest.raises(ValueError, match="32-bit words"):
        gaussian(4, counter=(0, 0, word))
    with pytest.raises(ValueError, match="32-bit words"):
        gaussian(4, key=(word, 0))


@pytest.mark.parametrize("std", [-1.0, np.nan, np.inf])
def test_a_spread_that_is_none_is_refused(std):
    with pytest.raises(InvalidPrivacyError, match="std must be zero or positive, and finite"):
        node_noise(4, std, 1, 2, 3)


MANY = 2**24


@pytest.fixture(scope="module")
def draws():
    return gaussian(MANY).astype(float)


def test_the_distribution_is_standard_normal(draws):
    assert stats.kstest(draws, "norm").pvalue > FALSE_ALARM
    ranked = np.sort(draws)
    weights = 2 * np.arange(1, MANY + 1) - 1
    logs = stats.norm.logcdf(ranked) + stats.norm.logsf(ranked[::-1])
    statistic = -MANY - (weights * logs).sum() / MANY
    # Anderson and Darling's is a sum of chi-squares with weights 1 / (j (j + 1)): far out only the
    # first one counts (Zolotarev 1961), times the root of 3, which the others' ratios multiply to
    assert np.sqrt(3) * stats.chi2(1).sf(2 * statistic) > FALSE_ALARM


def test_moments_are_those_of_the_normal_distribution(draws):
    z = stats.norm.isf(FALSE_ALARM / 2)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (5, 0), (6, 15), (8, 105)):
        spread = np.sqrt(stats.norm.moment(2 * power) - moment**2)
        assert abs((draws**power).mean() - moment) < z * spread / np.sqrt(MANY)


def test_tails_hold_what_they_should_to_five_sigma_and_beyond(draws):
    edges = np.arange(-5.25, 5.26, 0.25)
    seen = np.bincount(np.searchsorted(edges, draws), minlength=edges.size + 1)
    expected = MANY * np.diff(stats.norm.cdf([-np.inf, *edges, np.inf]))
    assert expected.min() > 1
    assert stats.chisquare(seen, expected).pvalue > FALSE_ALARM
    for threshold in (4.0, 4.5, 5.0, 5.3):
        beyond = stats.poisson(2 * MANY * stats.norm.sf(threshold))
        assert beyond.sf((np.abs(draws) > threshold).sum() - 1) > FALSE_ALARM
        assert beyond.cdf((np.abs(draws) > threshold).sum()) > FALSE_ALARM


def test_very_small_numbers_are_as_frequent_as_they_should_be(draws):
    for width in (1e-4, 1e-5, 1e-6):
        within = stats.poisson(MANY * 2 * width * stats.norm.pdf(0))
        seen = (np.abs(draws) < width).sum()
        assert within.sf(seen - 1) > FALSE_ALARM
        assert within.cdf(seen) > FALSE_ALARM


def largest_autocorrelation(values):
    """The largest of all lags up to half the length, in standard deviations of chance."""
    n = values.size
    spectrum = np.fft.rfft(values, 2 * n)
    by_lag = np.fft.irfft(np.abs(spectrum) ** 2)[1 : n // 2 + 1]
    return np.abs(by_lag / np.sqrt(np.arange(n - 1, n // 2 - 1, -1)) / values.var()).max()


def test_no_release_repeats_itself_at_any_distance():
    n = 2**18
    release = gaussian(n).astype(float)
    most = 1.1 * stats.norm.isf(FALSE_ALARM / n)
    for values in (release, release**2 - 1, np.sign(release)):
        assert largest_autocorrelation(values) < most
    repeated = np.tile(release[: n // 2], 2)
    assert largest_autocorrelation(repeated) > 40 * most


@pytest.mark.parametrize("same", ["round", "node"])
def test_neighbouring_nodes_and_rounds_are_independent(same):
    size, n = 20_000, 60
    where = [(1, i) if same == "round" else (i, 1) for i in range(n)]
    rows = np.array([node_noise(size, 1.0, 5, *place).numpy() for place in where])
    z = stats.norm.isf(FALSE_ALARM / 2 / (n * (n - 1) / 2))
    for values in (rows, rows**2, np.abs(rows) > 1.5):
        correlation = np.corrcoef(values)[np.triu_indices(n, 1)]
        assert np.abs(correlation).max() < 1.1 * z / np.sqrt(size)


def test_of_all_nodes_in_all_rounds_no_two_begin_alike():
    n_rounds, n_nodes = 200, 1000
    first = np.empty((n_rounds * n_nodes, 4), dtype=np.float32)
    for row in range(len(first)):
        first[row] = node_noise(4, 1.0, 11, row // n_nodes + 1, row % n_nodes).numpy()
    assert len(np.unique(first, axis=0)) == n_rounds * n_nodes
    assert stats.kstest(first.ravel(), "norm").pvalue > FALSE_ALARM
    assert abs(np.corrcoef(first.T)[np.triu_indices(4, 1)]).max() < 5.5 / np.sqrt(len(first))


def test_no_two_blocks_of_releases_come_from_equal_words():
    # the first block of one release is not a later one of another: counters differ in other words
    words = np.concatenate(
        [philox_words((1, 2), (0, 0, r, i), 64).T for r in range(30) for i in range(30)]
    )
    assert len(np.unique(words, axis=0)) == len(words)


def test_other_seeds_give_other_noise():
    rows = np.array([node_noise(20_000, 1.0, seed, 1, 0).numpy() for seed in (0, 1, 2**32, 2**60)])
    assert np.abs(np.corrcoef(rows)[np.triu_indices(4, 1)]).max() < 5.5 / np.sqrt(20_000)


def test_plain_python_gives_the_bits_of_the_compiled_loops():
    code = (
        "import numpy as np; from fcfn_abm.dp.philox import fill_gaussian; "
        "out = np.empty(2100, dtype=np.float32); fill_gaussian(out, 0.7, (1, 2), (0, 3, 4)); "
        "print(out.tobytes().hex())"
    )
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"NUMBA_DISABLE_JIT": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert plain.strip() == gaussian(2100, std=0.7).tobytes().hex()


def test_the_bits_are_those_of_every_processor():
    # as computed on an AMD EPYC with AVX-512, compiled and in plain Python
    expected = "3f6e3317 3f764199 bf219736 3e4af03a bfdf1a7f bf2c6cbd"
    assert gaussian(6).view(np.uint32).tolist() == [int(word, 16) for word in expected.split()]


def test_compiled_arithmetic_is_not_contracted():
    numba = pytest.importorskip("numba")
    loop = numba.njit(error_model="numpy")(philox._transform.py_func)
    rows = [np.ones(4, dtype=np.uint32)] * 2 + [np.ones(4, dtype=np.float32)] * 3
    loop(*rows, np.float32(1))
    (assembly,) = loop.inspect_asm().values()
    assert "sqrt" in assembly
    assert not re.search(r"\bv?fn?m(add|sub|la|ls)\d*", assembly)
