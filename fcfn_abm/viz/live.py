"""A market that is played in the window, with its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from fcfn_abm import build
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.state import RoundState
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import FcfnError
from fcfn_abm.process.workers import count_cores
from fcfn_abm.records import sample_rows
from fcfn_abm.runs.closed_loop import ValueRound, create_learner
from fcfn_abm.runs.facts import reference_facts
from fcfn_abm.runs.rounds import Rounds
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz.frame import Floats, Frame, Path
from fcfn_abm.viz.frame import Training as Curves

if TYPE_CHECKING:
    from fcfn_abm.training import ImageData, Training, TrainingRound

_KEPT_WHOLE = 2000  # with more nodes only the paths of a sample are kept
_KEPT = 256  # size of that sample
_LEARNED = [field.name for field in fields(ValueRound)]
_MEASURES = [field.name for field in fields(RoundState)]


class LiveMarket:
    """Plays a scenario's market round by round, and then trains with what it bought.

    Parameters
    ----------
    scenario : Scenario
        Complete and checked.
    """

    live = True

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._images: ImageData | None = None
        if build.needs_holdings(scenario):
            self._images = build.load_images(scenario)  # costs or payments depend on them
        self._population = build.draw_population(scenario, self._images)
        self.market = PrivacyMarket(scenario, population=self._population, collect_nodes=False)
        rho = self.market.columns.rho
        self._price()
        self._kept = (
            np.arange(rho.size)
            if rho.size <= _KEPT_WHOLE
            else sample_rows(rho, _KEPT, self.market.outcome.epsilon > 0)
        )
        self._reports: list[Floats] = [self._report()]
        self._watched: dict[int, tuple[list[int], list[float]]] = {}
        self._learner = create_learner(scenario, self.market)
        self._spent: list[float] = []
        self._rounds = Rounds(
            self.market,
            self._record,
            begin=self._begin_training if scenario.trains else None,
            n_rounds=scenario.training.rounds if scenario.training else 0,
            every_round=not self._trains_after,
            learner=self._learner,
        )
        self._data_label = ""
        self.training_problem = ""

    @property
    def moment(self) -> int:
        """Rounds that were played, and rounds of training after them."""
        trained = len(self._results) - 1 if self._trains_after and self._results else 0
        return self.market.round_index + trained

    @property
    def moments(self) -> int | None:
        """None: it is not known when a market will end."""
        return None

    @property
    def over(self) -> bool:
        """Whether the market has its verdict, and the training its last round."""
        return self._rounds.over

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """Kind, rounds and reason of the verdict."""
        return asdict(self.market.verdict) if self.market.verdict else None

    @property
    def _trains_after(self) -> bool:
        training = self.scenario.training
        return training is not None and training.schedule == "at-equilibrium"

    @property
    def _results(self) -> list[TrainingRound]:
        return self._rounds.training.results if self._rounds.training else []

    def step(self) -> None:
        """Take the next round: of the market, of the training, or of both in turn."""
        try:
            if self._rounds.step() and self._learner:
                self._spent.append(self._find_most_spent())
        except FcfnError as error:
            self.training_problem = str(error)
            self._rounds.stop_training()

    def _price(self) -> None:
        """Compute the closed form and the order of costs of the present population."""
        self.form = reference_facts(self.market.outcome, self.market.primitives.rho)
        self._by_cost = np.argsort(self.market.columns.rho, kind="stable")

    def _record(self) -> None:
        """Keep the reports of a round of the market."""
        if self.scenario.population.churn is not None:
            self._price()
        self._reports.append(self._report())
        for node, (rounds, epsilon) in self._watched.items():
            rounds.append(self.market.round_index)
            epsilon.append(self.market.epsilon.item(node))

    def _begin_training(self) -> Training:
        images, population = self._images, self._population
        if images is None:
            images = build.load_images(self.scenario)
            population = build.deal_images(self.scenario, population, images)
        trainer = build.create_trainer(self.scenario, population, images, count_cores())
        self._data_label = images.label
        return trainer.begin(misreport=self.market.population.misreport_factor)

    def _report(self) -> Floats:
        return np.asarray(self.market.columns.epsilon[self._kept])

    def frame(self) -> Frame:
        """Return the current state."""
        columns, data = self.market.columns, self.market.datacollector.model_vars
        return Frame(
            scenario=self.scenario,
            n_nodes=len(columns),
            round=self.market.round_index,
            nodes=np.arange(len(columns)),
            rho=columns.rho,
            epsilon=columns.epsilon,
            payment=columns.payment,
            utility=columns.utility,
            exited=columns.exited_before(self.market.round_index),
            history={name: data[name] for name in _MEASURES} | self._list_learned(),
            form=self.form,
            priced=None if self.form["threshold"] else self.market.outcome.epsilon,
            by_cost=self._by_cost,
            training=self._training_curves(),
            note=self.training_problem,
        )

    def _find_most_spent(self) -> float:
        """Return the total epsilon of the node that has spent most, as privacy.view sees it."""
        ledger, privacy = getattr(self._rounds.training, "ledger", None), self.scenario.privacy
        if ledger is None:
            return 0.0
        central = privacy.view == "central"
        spent = ledger.central_epsilon if central else ledger.epsilon
        return float(spent(privacy.delta).max(initial=0.0))

    def _list_learned(self) -> dict[str, list[float]]:
        """Return what the server has learned in each round of the market, as a record has it."""
        if self._learner is None:
            return {}
        rows, n_rounds = self._learner.rows, self.market.round_index
        columns = {name: [getattr(row, name) for row in rows] for name in _LEARNED}
        found = {
            name: [*values[:n_rounds], *[math.nan] * (n_rounds - len(values))]
            for name, values in columns.items()
        }
        stands = self._spent[-1:] or [math.nan]  # what was spent stays so when training is over
        return found | {"epsilon_spent": [*self._spent, *stands * (n_rounds - len(self._spent))]}

    def _training_curves(self) -> Curves | None:
        settings = self.scenario.training
        if settings is None or not settings.enabled:
            return None
        results = self._results
        curve = ([r.round for r in results], [r.accuracy for r in results])
        data = self._data_label or settings.data.kind
        return Curves(data, {self.scenario.mechanism.kind: curve}, settings.rounds)

    def path(self, node: int) -> Path:
        """Return the reports of a node; in large markets, since the first request for it."""
        place = np.searchsorted(self._kept, node)
        if place < self._kept.size and self._kept[place] == node:
            return Path(range(len(self._reports)), [float(r[place]) for r in self._reports])
        start = self.market.round_index, self.market.columns.epsilon.item(node)
        rounds, epsilon = self._watched.setdefault(node, ([start[0]], [start[1]]))
        return Path(rounds, epsilon)

    def exit_round(self, node: int) -> int | None:
        """Return the round at whose end a node left."""
        round_index = self.market.columns.exit_round.item(node)
        return None if round_index == NEVER else round_index
