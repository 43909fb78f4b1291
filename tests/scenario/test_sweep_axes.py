"""From [sweep] in a file to the scenarios of all runs."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fcfn_abm.build import list_runs, load_scenario, scenario_schema
from fcfn_abm.errors import InvalidScenarioError
from fcfn_abm.rng import replication_seed
from fcfn_abm.scenario import Scenario, to_toml


def scenario(axes, seed=3, **sweep):
    return Scenario.model_validate({"seed": seed, "sweep": {"axes": axes, **sweep}})


def points(axes, **sweep):
    return [dict(run.point) for run in list_runs(scenario(axes, **sweep))]


def sentence(folder, text):
    path = folder / "test.toml"
    path.write_text(text)
    with pytest.raises(InvalidScenarioError) as caught:
        load_scenario(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


alphas = st.lists(st.floats(0.5, 50), min_size=1, max_size=4, unique=True)
betas = st.lists(st.floats(0.5, 50), min_size=1, max_size=3, unique=True)


@given(alphas, betas, st.integers(1, 3))
def test_a_grid_holds_every_combination_once_for_each_replication(alphas, betas, replications):
    axes = {"game.alpha": alphas, "game.beta": betas}
    runs = list_runs(scenario(axes, replications=replications))
    assert [run.index for run in runs] == list(range(len(alphas) * len(betas) * replications))
    expected = [
        (alpha, beta, replication)
        for alpha in alphas
        for beta in betas
        for replication in range(replications)
    ]
    assert [(*run.point.values(), run.replication) for run in runs] == expected
    for run in runs:
        assert run.scenario.game.alpha == run.point["game.alpha"]
        assert run.scenario.game.beta == run.point["game.beta"]
        assert run.scenario.seed == replication_seed(3, run.replication)
        assert run.scenario.sweep is None
    seeds = {run.scenario.seed for run in runs}
    assert len(seeds) == replications
    assert runs[0].scenario.seed == 3


@given(st.lists(st.tuples(st.floats(0.5, 50), st.floats(0.5, 50)), min_size=1, max_size=5))
def test_a_zip_takes_values_side_by_side(pairs):
    axes = {"game.alpha": [a for a, _ in pairs], "game.beta": [b for _, b in pairs]}
    assert [tuple(p.values()) for p in points(axes, mode="zip")] == pairs


@given(st.integers(1, 40), st.integers(0, 5))
def test_a_latin_hypercube_hits_each_interval_of_each_axis_once(n, seed):
    axes = {
        "game.alpha": {"low": 2.0, "high": 5.0},
        "game.beta": {"low": 0.1, "high": 100.0, "log": True},
    }
    drawn = points(axes, mode="latin-hypercube", n_samples=n, seed=seed)
    alpha = np.array([p["game.alpha"] for p in drawn])
    beta = np.array([p["game.beta"] for p in drawn])
    for unit in ((alpha - 2.0) / 3.0, np.log10(beta * 10.0) / 3.0):
        assert sorted(np.floor(unit * n)) == list(range(n))
    if n > 7:  # and the axes are shuffled apart
        assert list(np.argsort(alpha)) != list(np.argsort(beta))


def test_whole_numbers_and_lists_are_covered_as_evenly():
    axes = {
        "population.n_nodes": {"low": 5, "high": 9},
        "mechanism.kind": ["stackelberg", "random", "static", "yang", "ic-mle"],
    }
    drawn = points(axes, mode="latin-hypercube", n_samples=20)
    for path, values in (
        ("population.n_nodes", range(5, 10)),
        ("mechanism.kind", axes["mechanism.kind"]),
    ):
        found = [p[path] for p in drawn]
        assert {value: found.count(value) for value in values} == dict.fromkeys(values, 4)


def test_a_plain_sample_stays_inside_and_depends_on_the_seed_alone():
    axes = {"game.alpha": {"low": 1.0, "high": 100.0, "log": True}}
    drawn = [p["game.alpha"] for p in points(axes, mode="random", n_samples=400)]
    assert 1.0 <= min(drawn) < 1.2
    assert 80 < max(drawn) <= 100.0
    assert np.median(drawn) == pytest.approx(10.0, rel=0.3)  # the middle of the logarithms
    again = points(axes, mode="random", n_samples=400)
    assert [p["game.alpha"] for p in again] == drawn
    other = points(axes, mode="random", n_samples=400, seed=4)
    assert [p["game.alpha"] for p in other] != drawn


def test_a_range_is_divided_with_both_ends_and_whole_numbers_where_the_key_has_one():
    even = [p["game.alpha"] for p in points({"game.alpha": {"low": 1, "high": 3, "n": 5}})]
    assert even == [1.0, 1.5, 2.0, 2.5, 3.0]
    decades = points({"population.n_nodes": {"low": 10, "high": 1000, "n": 5, "log": True}})
    assert [p["population.n_nodes"] for p in decades] == [10, 32, 100, 316, 1000]
    log = [
        p["game.beta"] for p in points({"game.beta": {"low": 1, "high": 8, "n": 4, "log": True}})
    ]
    assert_allclose(log, [1, 2, 4, 8])


def test_choosing_a_mechanism_drops_the_options_of_the_other_one():
    base = Scenario.model_validate(
        {
            "mechanism": {"kind": "static", "epsilon": 7.0},
            "sweep": {"axes": {"mechanism.kind": ["static", "random", "stackelberg"]}},
        }
    )
    found = [run.scenario.mechanism for run in list_runs(base)]
    assert found[0].options["epsilon"] == 7.0
    assert "epsilon" not in found[1].options
    assert [choice.kind for choice in found] == ["static", "random", "stackelberg"]


def test_an_axis_may_list_names_and_tables():
    laws = [{"kind": "uniform", "low": 0.1, "high": 0.2}, "pareto", {"sigma": 0.5}]
    found = [run.scenario.population.rho for run in list_runs(scenario({"population.rho": laws}))]
    assert [law.kind for law in found] == ["uniform", "pareto", "lognormal"]
    assert found[0].options == {"low": 0.1, "high": 0.2}
    assert found[2].options["sigma"] == 0.5


def test_the_order_of_axes_over_a_kind_and_its_options_does_not_matter():
    axes = {"mechanism.epsilon": [2.0, 3.0], "mechanism.kind": ["static"]}
    for order in itertools.permutations(axes):
        found = list_runs(scenario({path: axes[path] for path in order}))
        assert [run.scenario.mechanism.options["epsilon"] for run in found] == [2.0, 3.0]


def test_a_written_sweep_reads_back_equal(tmp_path):
    axes = {"game.alpha": {"low": 1, "high": 3, "n": 5}, "learning.gain": [0.5, "auto"]}
    path = tmp_path / "test.toml"
    path.write_text(to_toml(scenario(axes, replications=2)))
    loaded = load_scenario(path)
    path.write_text(to_toml(loaded))
    assert load_scenario(path) == loaded
    assert len(list_runs(loaded)) == 20


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ('"game.alhpa" = [1.0]', ["game.alhpa", "no such key. Did you mean 'alpha'?"]),
        ('"gmae.alpha" = [1.0]', ["gmae.alpha", "Did you mean 'game'?"]),
        ('"game.alpha" = [1.0, -1.0]', ["game.alpha = -1.0", "greater than 0"]),
        ('"game.alpha" = []', ["game.alpha", "needs at least one value"]),
        ('"game.alpha" = 3.0', ["game.alpha", "needs a list of values, or a table"]),
        ("game.alpha = [1.0]", ["game", "must be quoted"]),
        ('"game.alpha" = {low = 1.0, hgih = 2.0}', ["game.alpha", "hgih", "'high'"]),
        ('"game.alpha" = {low = 1.0, high = 2.0}', ["game.alpha", "a range needs n"]),
        (
            '"game.alpha" = {low = 2.0, high = 1.0, n = 3}',
            ["game.alpha", "low must be below high"],
        ),
        ('"game.alpha" = {low = 0.0, high = 1.0, n = 3, log = true}', ["low must be positive"]),
        ('"game.alpha" = {low = 1.0, high = inf, n = 3}', ["game.alpha", "finite"]),
        (
            '"game.alpha" = {values = [1.0], n = 3}',
            ["game.alpha", "either a list of values, or low and high"],
        ),
        (
            '"population.n_nodes" = {low = 2, high = 4, n = 9}',
            ["population.n_nodes", "no 9 different evenly spaced integers"],
        ),
        ('"population.n_nodes" = [10, 1]', ["population.n_nodes = 1", "2, but it is 1"]),
        ('"population.n_nodes" = [10.5]', ["population.n_nodes = 10.5", "integer"]),
        ('"mechanism.kind" = ["statc"]', ["mechanism.kind = 'statc'", "Did you mean 'static'?"]),
        (
            '"mechanism.kind" = ["static", "random"]\n"mechanism.epsilon" = [1.0]',
            ["mechanism.kind = 'random', mechanism.epsilon = 1.0", "no such option"],
        ),
        (
            '"server.kind" = ["fixed"]\n"game.alpha" = [1.0, 2.0]',
            ["server.kind = 'fixed',", "[game] budget: is required"],
        ),
        ('"population" = [{n_nodes = 3}]', ["population: is a table", "population.n_nodes"]),
        ('"seed" = [1, 2]', ["seed: cannot be an axis"]),
        ('"sweep.replications" = [1, 2]', ["cannot lead into [sweep]"]),
        ('"game..alpha" = [1.0]', ["game..alpha: must be a path"]),
        ('"learning" = ["fixed"]\n"learning.gain" = [1.0]', ["overlaps with the axis learning.g"]),
    ],
)
def test_a_wrong_axis_gets_one_sentence_that_names_it(tmp_path, axes, words):
    message = sentence(tmp_path, f"[sweep.axes]\n{axes}")
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ('mode = "zpi"', ["[sweep] mode", "'latin-hypercube'", "'zpi'"]),
        ('mode = "random"', ["the mode 'random' needs n_samples"]),
        ("n_samples = 3", ["n_samples has no effect in the mode 'grid'"]),
        ("replications = 0", ["[sweep] replications", "greater than or equal to 1"]),
        ("replications = 6", ["[sweep] maximum: the sweep has 12 runs, and may have 10"]),
        ('mode = "zip"\naxes."game.beta" = [1.0]', ["zip", "game.beta has 1, game.alpha has 2"]),
        ('mode = "sobol"\nn_samples = 8', ["needs at least two axes"]),
        (
            'mode = "sobol"\nn_samples = 6\naxes."game.beta" = [1.0, 2.0]',
            ["n_samples must be a power of two in the mode 'sobol', not 6"],
        ),
        (
            'mode = "sobol"\nn_samples = 4\naxes."game.beta" = [1.0, 2.0]',
            ["the sweep has 16 runs, and may have 10"],
        ),
        ('keep = "all"', ["[sweep] keep", "'result' or 'record'"]),
    ],
)
def test_a_wrong_sweep_gets_one_sentence(tmp_path, sweep, words):
    text = f'[sweep]\nmaximum = 10\n{sweep}\naxes."game.alpha" = [1.0, 2.0]\n'
    message = sentence(tmp_path, text)
    for word in words:
        assert word in message, message


def test_a_huge_grid_is_refused_before_it_is_made(tmp_path):
    axes = "\n".join(
        f'"game.{key}" = {{low = 1.0, high = 2.0, n = 1000000}}'
        for key in ("alpha", "beta", "budget")
    )
    assert "1,000,000,000,000,000,000 runs" in sentence(tmp_path, f"[sweep.axes]\n{axes}")


def test_no_maximum_lets_a_sweep_run_for_ever(tmp_path):
    axes = '[sweep.axes]\n"game.alpha" = {low = 1.0, high = 2.0, n = 1000000}\n'
    grid = f"{axes}{axes.splitlines()[1].replace('alpha', 'beta')}"
    message = sentence(tmp_path, f"[sweep]\nmaximum = 1000000\nreplications = {10**18}\n{grid}")
    assert message.endswith("runs, and may have 1,000,000; take fewer.")
    message = sentence(tmp_path, f"[sweep]\nmaximum = 1000001\n{grid}")
    assert "[sweep] maximum: input should be less than or equal to 1000000" in message
    assert Scenario.model_validate({"sweep": {"maximum": 1_000_000}})


def test_a_number_of_runs_too_long_to_be_written_is_refused_all_the_same(tmp_path):
    most = 10**4000
    text = f'[sweep]\nreplications = {most}\naxes."game.alpha" = {{low = 1, high = 2, n = {most}}}'
    assert f"more than {10**30:,} runs" in sentence(tmp_path, text)


def files(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / f"{next(iter(texts))}.toml"


def test_a_file_changes_what_it_extends(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "root.toml").write_text("[game]\nalpha = 3.0\nbeta = 4.0")
    (tmp_path / "below" / "base.toml").write_text(
        'extends = "root.toml"\ntitle = "base"\n[game]\nbeta = 5.0\n[population.rho]\nsigma = 0.1\n'
        '[mechanism]\nkind = "static"\nepsilon = 2.0'
    )
    path = files(
        tmp_path,
        top='extends = "below/base.toml"\nmechanism = "random"\n[population.rho]\nmedian = 0.5',
    )
    found = load_scenario(path, ["game.average_over=population"])
    assert (found.title, found.game.alpha, found.game.beta) == ("base", 3.0, 5.0)
    assert found.game.average_over == "population"
    assert found.population.rho.options == {"median": 0.5, "sigma": 0.1}
    assert found.mechanism.kind == "random"
    assert "epsilon" not in found.mechanism.options
    assert "extends" not in to_toml(found)


@pytest.mark.parametrize(
    ("base", "kept"),
    [('kind = "lognormal"\nsigma = 0.1', True), ("sigma = 0.1", True), ('kind = "pareto"', False)],
)
def test_options_stay_where_the_kind_does_even_if_it_was_the_default(tmp_path, base, kept):
    path = files(
        tmp_path,
        top='extends = "base.toml"\n[population.rho]\nkind = "lognormal"',
        base=f"[population.rho]\n{base}",
    )
    sigma = load_scenario(path).population.rho.options["sigma"]
    assert (sigma == 0.1) == kept


def test_what_is_wrong_in_a_chain_of_files_names_them(tmp_path):
    path = files(tmp_path, one='extends = "two.toml"', two='extends = "one.toml"')
    with pytest.raises(
        InvalidScenarioError, match=r"extend each other in a circle: \S+one.toml -> \S+two.toml"
    ):
        load_scenario(path)
    path = files(tmp_path, three='extends = "thre.toml"')
    with pytest.raises(InvalidScenarioError, match=r"three.toml, extends: .*no such file. Did you"):
        load_scenario(path)
    path = files(tmp_path, four="extends = 3")
    with pytest.raises(InvalidScenarioError, match=r"extends: must be the name of .* but is 3"):
        load_scenario(path)
    path = files(tmp_path, five='extends = "six.toml"', six="[game]\nalpha = -1.0")
    with pytest.raises(
        InvalidScenarioError, match=r"five.toml extends \S+six.toml, \[game\] alpha"
    ):
        load_scenario(path)


def test_the_shipped_schema_is_the_one_that_is_printed():
    shipped = json.loads(Path("scenarios/scenario.schema.json").read_text(encoding="utf-8"))
    remedy = "run 'fcfn scenarios schema > scenarios/scenario.schema.json'"
    assert shipped == scenario_schema(), f"a registered class or a scenario key changed: {remedy}"


def test_files_that_name_a_schema_name_the_shipped_one():
    named = 0
    for path in sorted(Path("scenarios").rglob("*.toml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        if first.startswith("#:schema "):
            named += 1
            schema = path.parent / first.removeprefix("#:schema ")
            assert schema.resolve() == Path("scenarios/scenario.schema.json").resolve()
    assert named
