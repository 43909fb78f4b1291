"""The closed loop: the measured gain of the net decides the server's next payment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.game import averaged_nodes, best_linear_budget, server_utility
from fcfn_abm.learning.value import ValueEstimate, ValuePrior
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Game, Scenario
from fcfn_abm.scenario.schema import Value
from fcfn_abm.training import TrainingRound


@dataclass(frozen=True)
class ValueRound:
    """The server's estimates when it announced its cap, and the results of the round.

    Money is in currency; intervals are central 95 % credible intervals. Measured values are nan in
    rounds without training.
    """

    alpha: float
    """Estimate of alpha used for the price of the round."""
    alpha_low: float
    alpha_high: float
    beta: float
    """Estimate of beta used for the price of the round, in currency."""
    beta_low: float
    beta_high: float
    depreciation: float
    """Estimate of the share of the stock lost per round."""
    exploration: float
    """Announced cap divided by the cap that the server's rule chose."""
    accuracy: float
    """Test accuracy after the round."""
    gain: float
    """Increase of accuracy, or decrease of the loss, in the round."""
    measured_value: float
    """The gain plus the loss of the stock, in currency."""
    expected_value: float
    """Expected value at the round's epsilon by the estimate after the round, in currency."""
    expected_value_low: float
    expected_value_high: float
    misfit: float
    """Distance of the fitted logarithm to the best concave curve, in currency."""


class ValueLoop:
    """Lets a market's server learn the value of epsilon from its rounds.

    Parameters
    ----------
    market : PrivacyMarket
        Market of the server, which announces a cap every round.
    settings : Value
        Settings of the learning.
    n_rounds : int
        Rounds of training, after which exploration ends.

    Attributes
    ----------
    rows : list of ValueRound
        One entry per round of training.
    """

    def __init__(self, market: PrivacyMarket, settings: Value, n_rounds: int) -> None:
        self._market, self._settings, self._n_rounds = market, settings, n_rounds
        self._game: Game = market.server.game
        self.prior = ValuePrior(
            settings.prior_alpha or self._game.alpha,
            (settings.prior_beta or self._game.beta) / settings.price,
            settings.prior_spread,
            settings.prior_depreciation,
            settings.prior_noise,
        )
        self._measured: list[tuple[float, float, float]] = []
        """Mean epsilon, previous stock and gain of each round with training."""
        self.estimate = ValueEstimate([], [], [], self.prior)
        self.rows: list[ValueRound] = []
        self._belief: dict[str, float] = {}
        if self._reprices and (settings.prior_alpha or settings.prior_beta):
            self._price(self.prior.alpha, self.prior.beta * settings.price)
        self._update_belief()

    @property
    def _reprices(self) -> bool:
        """Whether the market's alpha and beta follow the estimate."""
        return not (self._settings.frozen or self._market.server.rule.sees_measured_value)

    def begin_round(self) -> None:
        """Draw whether to raise or lower the next cap, before the server announces it."""
        next_round = self._market.round_index + 1
        size = self._settings.explore / math.sqrt(next_round)
        if not self._reprices or next_round > self._n_rounds:
            size = 0.0  # a rule that sees the measured value explores by itself
        chance = stream(self._market.seed, "exploration", next_round)
        self._market.server.next_factor = math.exp(size if chance.random() < 0.5 else -size)

    def end_round(self, results: Sequence[TrainingRound]) -> None:
        """Process a round of training, and price the next one by the new estimates.

        Parameters
        ----------
        results : sequence of TrainingRound
            From the net before training to the last round.
        """
        market, settings = self._market, self._settings
        before, gain = self._stock(results, -2), self._stock(results, -1) - self._stock(results, -2)
        epsilon = market.state.mean_epsilon
        trained = results[-1].n_nodes > 0 and epsilon > 0
        if trained:
            self._measured.append((epsilon, before, gain))
            window = self._measured[-settings.window :]
            epsilons, stocks, gains = zip(*window, strict=True)
            self.estimate = ValueEstimate(epsilons, stocks, gains, self.prior)
        found, price = self.estimate, settings.price
        value = price * (gain + found.depreciation * before) if trained else math.nan
        low, high = found.value_interval(epsilon) if trained else (math.nan, math.nan)
        self.rows.append(
            ValueRound(
                **self._belief,
                exploration=market.server.factor,
                accuracy=results[-1].accuracy,
                gain=gain if trained else math.nan,
                measured_value=value,
                expected_value=price * float(found(epsilon)) if trained else math.nan,
                expected_value_low=price * low,
                expected_value_high=price * high,
                misfit=price * found.misfit,
            )
        )
        if not trained:
            return
        if not settings.frozen:
            market.server.measured_value = value
        if self._reprices and market.round_index < market.scenario.rounds.maximum:
            self._price(found.alpha, found.beta * price)
        self._update_belief()

    def _stock(self, results: Sequence[TrainingRound], place: int) -> float:
        """Return the improvement of the net over the untrained one."""
        if self._settings.measure == "accuracy":
            return results[place].accuracy - results[0].accuracy
        return results[0].loss - results[place].loss

    def _price(self, alpha: float, beta: float) -> None:
        """Set alpha and beta of the market's server."""
        self._market.set_game(alpha=alpha, beta=beta)

    def _update_belief(self) -> None:
        """Record the estimates that price the next round."""
        found, price, game = self.estimate, self._settings.price, self._market.server.game
        alpha, beta = found.alpha_interval(), found.beta_interval()
        follows = self._reprices
        self._belief = {
            "alpha": game.alpha if follows else found.alpha,
            "alpha_low": alpha[0],
            "alpha_high": alpha[1],
            "beta": game.beta if follows else price * found.beta,
            "beta_low": price * beta[0],
            "beta_high": price * beta[1],
            "depreciation": found.depreciation,
        }

    def extend(self, rounds: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
        """Return the rounds of a market with the estimates after each, and the privacy spent.

        Parameters
        ----------
        rounds : DataFrame
            One row per round of the market.
        ledger : DataFrame
            One row per round and node that trained in it, as in a record.
        """
        names = list(ValueRound.__dataclass_fields__)
        rows = pd.DataFrame([asdict(row) for row in self.rows], columns=names)
        central = self._market.scenario.privacy.view == "central"
        spending = ledger["epsilon_central" if central else "epsilon_total"]
        spent = spending.groupby(ledger["round"]).max().cummax()
        return rounds.assign(
            **rows.reindex(index=range(len(rounds))).astype(float),
            epsilon_spent=spent.reindex(rounds["round"]).ffill().to_numpy(),
        )

    def facts(self, rounds: pd.DataFrame) -> dict[str, Any]:
        """Return the final estimates of the server, and the regret of its caps.

        Parameters
        ----------
        rounds : DataFrame
            The recorded rounds of the market.
        """
        found, price = self.estimate, self._settings.price
        trained = rounds.iloc[: len(self.rows)]
        epsilon, paid = trained["mean_epsilon"].tolist(), trained["payment"].tolist()
        alpha, beta = found.alpha, price * found.beta
        regret = compute_regret(self._market, alpha, beta, epsilon, paid)
        return {
            "alpha": alpha,
            "alpha_interval": found.alpha_interval(),
            "beta": beta,
            "beta_interval": tuple(price * end for end in found.beta_interval()),
            "depreciation": found.depreciation,
            "misfit": price * found.misfit,
            "n_rounds": found.n_rounds,
            **asdict(regret),
        }


def create_learner(scenario: Scenario, market: PrivacyMarket) -> ValueLoop | None:
    """Return the learner of a scenario's server, or None if it does not learn."""
    if scenario.value is None or scenario.training is None or not scenario.trains:
        return None
    return ValueLoop(market, scenario.value, scenario.training.rounds)


@dataclass(frozen=True)
class Regret:
    """The utility of a server's caps compared with the best cap in hindsight."""

    best_cap: float
    """Best constant cap, with the nodes at equilibrium, in currency."""
    server_value: float
    """Utility of its own caps over all rounds: values of epsilon minus payments."""
    best_server_value: float
    """Utility of the best cap over the same number of rounds, in currency."""
    regret: float
    """The difference."""


def compute_regret(
    market: PrivacyMarket,
    alpha: float,
    beta: float,
    epsilon: Sequence[float],
    paid: Sequence[float],
) -> Regret:
    """Compare the utility of a server's caps with that of the best cap in hindsight.

    Parameters
    ----------
    market : PrivacyMarket
        Market whose nodes respond to the best cap at equilibrium.
    alpha, beta : float
        The value of a round, ``beta ln(1 + alpha eps)`` in currency: the true one if known,
        otherwise its estimate after the last round.
    epsilon, paid : sequence of float
        Mean epsilon of each round, and the server's payment for it.

    Notes
    -----
    Epsilon is proportional to the cap, and the value of a round depends only on its own epsilon,
    so the best cap is the same in all rounds: B* (41).
    """
    contest, game = market.contest, market.server.game
    n_averaged = averaged_nodes(game.average_over, contest.epsilon)
    unit = contest.total_epsilon / n_averaged if n_averaged else 0.0
    cap = best_linear_budget(unit, alpha, beta)
    own = sum(
        server_utility(float(one), alpha, beta, float(cost))
        for one, cost in zip(epsilon, paid, strict=True)
    )
    best = len(epsilon) * server_utility(cap * unit, alpha, beta, cap)
    return Regret(cap, own, best, best - own)
