"""The training part of a run: with the market's epsilon, and with what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from fcfn_abm import build
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.mechanisms import MECHANISMS
from fcfn_abm.population import Population
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.records.tables import empty
from fcfn_abm.runs.checkpoint import Checkpoint
from fcfn_abm.runs.free_riders import group_facts, utility_a_round
from fcfn_abm.runs.privacy_notes import (
    NOISE_NOTE,
    SECURE_NOTE,
    write_central_note,
    write_privacy_note,
)
from fcfn_abm.runs.rounds import KnownReports, Rounds
from fcfn_abm.runs.training_log import TrainingLog, digest_data
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.schema import Training as TrainingSettings
from fcfn_abm.training import FederatedTrainer, Training, TrainingRound
from fcfn_abm.training.workers import run_side_by_side

type Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """What training adds to a record."""

    rounds: pd.DataFrame
    """One row a comparison ("arm") and round."""
    ledger: pd.DataFrame
    """One row a round and node of the market's own training: privacy spent."""
    nodes: dict[str, Any]
    """Columns of the nodes' table."""
    facts: dict[str, Any]
    """Data, net, privacy notes, and how each comparison did."""


@dataclass(frozen=True)
class _Comparison:
    """One training of a run: the market's own, or one that it is compared with."""

    name: str
    epsilon: Floats
    """At the market's end."""
    private: bool
    node_utility: Floats
    server_utility: float


class RunTrainings:
    """The trainings of a run.

    Parameters
    ----------
    scenario : Scenario
        What is trained.
    population : Population
        Who trains.
    trainer : FederatedTrainer
        What trains them.
    checkpoint : Checkpoint, optional
        Where trainings are taken up, and what keeps them for a later run.
    """

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        trainer: FederatedTrainer,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._scenario, self._population, self._trainer = scenario, population, trainer
        self._settings = scenario.training or TrainingSettings()
        self._checkpoint = checkpoint
        self._dealt = digest_data(trainer) if checkpoint else b""
        self._own = self._log(scenario.mechanism.kind, private=True, keeps_spending=True)

    def begin(self) -> Training:
        """Begin the training with the market's own epsilon."""
        return self._own.begin()

    def take_in(self, result: TrainingRound) -> None:
        """Take in a round of the market's own training that was taken elsewhere."""
        self._own.take_in(result)

    def so_far(
        self, market: PrivacyMarket, rounds: Rounds[Training], broke_down: str = ""
    ) -> Trained:
        """Return what the market's own training has shown so far, compared with nothing.

        Parameters
        ----------
        market, rounds : PrivacyMarket, Rounds
            As in :meth:`carry_out`.
        broke_down : str, optional
            Why the training ended early.
        """
        own = self._comparisons(market)[:1]
        return self._sum_up(market, rounds, own, [self._own], broke_down)

    def carry_out(
        self, market: PrivacyMarket, rounds: Rounds[Training], *, progress: bool
    ) -> Trained:
        """Take the rounds of a run that are left, and train what they are compared with.

        Parameters
        ----------
        market : PrivacyMarket
            Whose rounds they are.
        rounds : Rounds
            With :meth:`begin`; where the market ends before the training begins, at its end.
        progress : bool
            Whether to show a bar on stderr.

        Notes
        -----
        A training that breaks down ends them all; what came before is returned, and the facts say
        so in ``broke_down``.
        """
        own = self._own
        with progress_bar(
            total=(1 + len(self._settings.compare)) * (self._settings.rounds + 1),
            desc="training",
            unit="round",
            shown=progress,
        ) as bar:
            own.follow(rounds, bar)
            if self._scenario.events:
                self._take_up_game(market)
            comparisons = self._comparisons(market)
            logs, broke_down = [own], own.broke_down
            others = () if broke_down else comparisons[1:]
            with closing(self._train_comparisons(others, rounds.reports, bar)) as trained:
                for log in trained:
                    logs.append(log)
                    broke_down = log.broke_down
                    if broke_down:
                        break
        return self._sum_up(market, rounds, comparisons, logs, broke_down)

    def _train_comparisons(
        self, comparisons: Sequence[_Comparison], reports: list[Floats], bar: tqdm[Any]
    ) -> Generator[TrainingLog]:
        """Train one comparison after another; at the same time where the engine allows it."""

        def train(comparison: _Comparison, stops: Callable[[], bool]) -> TrainingLog:
            log = self._log(comparison.name, private=comparison.private)
            log.follow(self._rounds_of(comparison, log, reports), bar, stops)
            return log

        if self._trainer.engine.shares:
            return run_side_by_side([partial(train, one) for one in comparisons])
        return (train(one, lambda: False) for one in comparisons)

    def _sum_up(
        self,
        market: PrivacyMarket,
        rounds: Rounds[Training],
        comparisons: list[_Comparison],
        logs: list[TrainingLog],
        broke_down: str,
    ) -> Trained:
        """Return what trainings have shown, the market's own first."""
        frames, facts = [], []
        for comparison, log in zip(comparisons, logs, strict=False):  # one may have ended them
            if log.results:  # without trade nobody trains
                frames.append(pd.DataFrame(map(asdict, log.results)).assign(arm=comparison.name))
                facts.append(self._facts(comparison, rounds.reports, log, market))
        nodes = self._nodes([*rounds.reports, market.epsilon])
        used = [*rounds.reports, *(one.epsilon for one in comparisons if one.private)]
        return Trained(
            rounds=pd.concat(frames, ignore_index=True) if frames else empty("training"),
            ledger=self._own.spent,
            nodes=nodes,
            facts={
                "data": self._trainer.data.label,
                "n_parameters": self._trainer.n_parameters,
                **self._trainer.engine.facts(),
                "arms": facts,
                **({"broke_down": broke_down} if broke_down else {}),
                "central_note": write_central_note(self._trainer),
                "max_participations": self._trainer.plan.participation_limit,
                "privacy_note": write_privacy_note(
                    self._trainer,
                    max(float(epsilon.max(initial=0.0)) for epsilon in used),
                    nodes["epsilon_sold"],
                    nodes["epsilon_total"],
                    nodes["epsilon_central"],
                ),
                "noise_note": SECURE_NOTE if self._scenario.privacy.secure_noise else NOISE_NOTE,
            },
        )

    def _log(self, name: str, *, private: bool, keeps_spending: bool = False) -> TrainingLog:
        return TrainingLog(
            name,
            self._trainer,
            self._population_in(name).misreport_factor,
            private=private,
            checkpoint=self._checkpoint,
            dealt=self._dealt,
            every=self._settings.checkpoint_every,
            keeps_spending=keeps_spending,
        )

    def _take_up_game(self, market: PrivacyMarket) -> None:
        """Price what is compared in the game as events have left it."""
        now, game = market.primitives, self._scenario.game
        changes = {"alpha": now.alpha, "beta": now.beta, "budget": now.budget}
        self._scenario = self._scenario.model_copy(update={"game": game.model_copy(update=changes)})
        self._population = replace(market.population, held=self._population.held)

    def _population_in(self, name: str) -> Population:
        """Return the nodes as a comparison's mechanism sees them."""
        kind = self._scenario.mechanism.kind if name == build.NO_NOISE else name
        asks_for_costs = MECHANISMS[kind].reports == "cost"
        return self._population.asked_for_costs() if asks_for_costs else self._population

    def _comparisons(self, market: PrivacyMarket) -> list[_Comparison]:
        """Return the market's own training, and what it is compared with."""
        epsilon = market.epsilon
        own = (market.columns.utility, market.state.server_utility)
        found = [_Comparison(self._scenario.mechanism.kind, epsilon, True, *own)]
        for name in self._settings.compare:
            if name == build.NO_NOISE:
                found.append(_Comparison(name, epsilon, False, *own))
                continue
            priced = build.price_mechanism(self._scenario, name, self._population, market.budget)
            utilities = priced.node_utility, priced.server_utility
            found.append(_Comparison(name, priced.epsilon, True, *utilities))
        return found

    def _rounds_of(
        self, comparison: _Comparison, log: TrainingLog, reports: list[Floats]
    ) -> Rounds[Training]:
        """Return the rounds of a comparison, whose reports are known."""
        as_played = bool(reports) and comparison.name == build.NO_NOISE  # the same nodes each round
        return Rounds(
            KnownReports(reports if as_played else [comparison.epsilon]),
            begin=log.begin,
            n_rounds=len(reports) if as_played else self._settings.rounds,
            every_round=as_played,
        )

    def _facts(
        self,
        comparison: _Comparison,
        reports: list[Floats],
        log: TrainingLog,
        market: PrivacyMarket,
    ) -> dict[str, Any]:
        """Say how a training did; means are over all nodes in all rounds with an epsilon."""
        own = comparison.name in (self._scenario.mechanism.kind, build.NO_NOISE)
        epsilon = np.array(reports if own and reports else [comparison.epsilon])
        active = epsilon > 0
        last: TrainingRound = log.results[-1]
        facts = {
            "name": comparison.name,
            "private": comparison.private,
            "n_nodes": int(active.any(axis=0).sum()),
            "mean_epsilon": float(epsilon[active].mean()),
            "mean_true_epsilon": self._mean_true_epsilon(epsilon) if comparison.private else None,
            "node_utility": float(comparison.node_utility.sum()),
            "n_losing": int((comparison.node_utility < -1e-12).sum()),
            "server_utility": comparison.server_utility,
            "accuracy": last.accuracy,
            "loss": last.loss,
        }
        if self._scenario.privacy.adaptive_clipping and log.training:
            facts["clipping_norms"] = log.training.clipping_norms
        if comparison.private and (
            self._scenario.population.can_misreport or self._scenario.privacy.check
        ):
            facts["free_riders"] = self._free_riders(comparison, log, market)
        return facts

    def _mean_true_epsilon(self, epsilon: Floats) -> float:
        true = [self._trainer.privacy(of_round) for of_round in epsilon]
        per_round = self._trainer.plan.horizon == "round"
        covered = np.array([p.epsilon_per_round if per_round else p.epsilon_total for p in true])
        return float(covered[epsilon > 0].mean())

    def _free_riders(
        self, comparison: _Comparison, log: TrainingLog, market: PrivacyMarket
    ) -> dict[str, Any]:
        """Say what nodes that misreport earn, and the others; and if none of them did."""
        scenario, population = self._scenario, self._population_in(comparison.name)
        truthful = population.telling_the_truth()
        if comparison.name == scenario.mechanism.kind:
            fair = build.price_scenario(scenario, truthful)
        else:
            fair = build.price_mechanism(scenario, comparison.name, truthful, market.budget)
        cost, flagged = population.rho * comparison.epsilon, log.flagged_round
        earned = utility_a_round(comparison.node_utility, cost, flagged, self._trainer.plan.rounds)
        utilities = {
            "utility_if_all_were_honest": fair.node_utility,
            "utility_unchecked": comparison.node_utility,
            "utility": earned,
        }
        return {
            "misreporting": group_facts(population.misreports, flagged, utilities),
            "honest": group_facts(~population.misreports, flagged, utilities),
            **({} if population.reported_cost is None else {"reports": "cost"}),
        }

    def _nodes(self, reports: list[Floats]) -> dict[str, Any]:
        """Return the columns of the nodes' table, for what each node reported last."""
        trainer, own = self._trainer, self._own
        latest = _find_latest(reports)
        sold, alone = trainer.privacy(latest), trainer.own_privacy(latest)
        columns = {
            "n_samples": trainer.n_samples.astype(np.int64),
            "label_divergence": self._population.held.label_divergence,
            "noise_multiplier": alone.noise_multiplier,
            "noise_std": alone.noise_std,
            "epsilon_per_round": alone.epsilon_per_round,
            "epsilon_sold": (
                sold.epsilon_per_round if trainer.plan.horizon == "round" else sold.epsilon_total
            ),
            "epsilon_total": own.ledger.epsilon(sold.delta),
            "epsilon_central": own.ledger.central_epsilon(sold.delta),
            "delta": sold.delta,
        }
        if trainer.plan.currency == "zcdp":
            columns["zcdp_sold"] = latest
            columns["zcdp_total"] = own.ledger.zcdp()
            columns["zcdp_central"] = own.ledger.central_zcdp()
        if self._scenario.privacy.check:
            columns["flagged_round"] = _mask_zeros(own.flagged_round)
        return columns


def _find_latest(reports: list[Floats]) -> Floats:
    """Return what each node reported last that was more than nothing."""
    latest = reports[0]
    for of_round in reports[1:]:
        latest = np.where(of_round > 0, of_round, latest)
    return latest


def _mask_zeros(flagged_round: npt.NDArray[np.int64]) -> Any:
    """Return rounds, missing where they are zero."""
    rounds = pd.array(flagged_round, dtype="Int64")
    rounds[flagged_round == 0] = pd.NA
    return rounds
