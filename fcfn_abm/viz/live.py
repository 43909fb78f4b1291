"""A market that is played in the window, followed by its training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fcfn_abm import build
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.state import RoundState
from fcfn_abm.build.market import PrivacyMarket
from fcfn_abm.errors import FcfnError, InvalidRecordError
from fcfn_abm.process.workers import count_cores
from fcfn_abm.records import Record, Recorder
from fcfn_abm.runs.closed_loop import ValueRound, create_learner
from fcfn_abm.runs.facts import reference_facts
from fcfn_abm.runs.rounds import Rounds
from fcfn_abm.runs.run import collect_record, reporting_costs
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz.frame import Frame, Path
from fcfn_abm.viz.frame import Training as Curves
from fcfn_abm.viz.past import Past

if TYPE_CHECKING:
    from fcfn_abm.runs.train import RunTrainings
    from fcfn_abm.training import ImageData, Training, TrainingRound

_LEARNED = [field.name for field in fields(ValueRound)]
_TRACED_WHOLE = 2000  # with more nodes the record has traces of a sample only
_MEASURES = [field.name for field in fields(RoundState)]


class LiveMarket:
    """Plays a scenario's market round by round, then trains with the epsilon that was bought.

    Earlier moments can be shown; the next round still follows the last one played.

    Parameters
    ----------
    scenario : Scenario
        A complete, validated scenario.
    """

    live = True

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._images: ImageData | None = None
        if build.needs_holdings(scenario):
            self._images = build.load_images(scenario)  # costs or payments depend on them
        self._population = build.draw_population(scenario, self._images)
        self.market = PrivacyMarket(scenario, population=self._population, collect_nodes=False)
        self._price()
        self._past = Past(self.market.columns)
        self._keep()
        self._back: int | None = None  # the shown moment, if not the last
        self._kept_settings = scenario.record
        if scenario.record.traces != "none" and len(self.market.columns) > _TRACED_WHOLE:
            self._kept_settings = scenario.record.model_copy(update={"traces": "sample"})
        self._recorder = Recorder(
            self._kept_settings, self.market.columns.rho, self._priced.epsilon > 0
        )
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
        self._trainings: RunTrainings | None = None
        self._seconds = {"market": 0.0, "training": 0.0}
        self._data_label = ""
        self.training_problem = ""

    @property
    def moments(self) -> int:
        """Rounds of the market and of training played so far."""
        trained = len(self._results) - 1 if self._trains_after and self._results else 0
        return self.market.round_index + trained

    @property
    def moment(self) -> int:
        """The shown moment, from 0."""
        return self.moments if self._back is None else self._back

    @property
    def first_moment(self) -> int:
        """The first moment that can be shown."""
        return self._past.first_round

    @property
    def round(self) -> int:
        """The round of the market at this moment."""
        return min(self.moment, self.market.round_index)

    @property
    def over(self) -> bool:
        """Whether the market has a verdict and training is complete."""
        return self._back is None and self._rounds.over

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """Kind, rounds and reason of the verdict, once the market has ended."""
        verdict = self.market.verdict
        return asdict(verdict) if verdict and self.round == self.market.round_index else None

    @property
    def _trains_after(self) -> bool:
        training = self.scenario.training
        return training is not None and training.schedule == "at-equilibrium"

    @property
    def _results(self) -> list[TrainingRound]:
        return self._rounds.training.results if self._rounds.training else []

    def step(self) -> None:
        """Show the next moment; after the last one, play another round.

        It is a round of the market, of training, or of both alternately.
        """
        if self._back is not None:
            self.seek(self._back + 1)
            return
        started, part = time.perf_counter(), "training" if self._rounds.trains_next else "market"
        try:
            result = self._rounds.step()
        except FcfnError as error:
            self.training_problem = str(error)
            self._rounds.stop_training()
        else:
            if result is not None and self._trainings:
                self._trainings.take_in(result)
            if result is not None and self._learner:
                self._spent.append(self._find_most_spent())
        self._seconds[part] += time.perf_counter() - started

    def seek(self, moment: int) -> None:
        """Show an earlier moment, or the last one if there is no such moment."""
        moment = max(moment, self.first_moment)
        self._back = None if moment >= self.moments else moment

    def _price(self) -> None:
        """Compute the closed form and the order of costs of the current population."""
        self._priced = self.market.outcome
        self.form = reference_facts(self._priced, reporting_costs(self.market, self._population))
        self._by_cost = np.argsort(self.market.columns.rho, kind="stable")

    def _record(self) -> None:
        """Store a round of the market."""
        if self.market.outcome is not self._priced:  # the nodes, or the game, have changed
            self._price()
        self._recorder(self.market)
        self._keep()

    def _keep(self) -> None:
        reference = (self.form, self._priced.epsilon, self._by_cost)
        self._past.keep(self.market.round_index, reference)

    def _begin_training(self) -> Training:
        from fcfn_abm.runs.train import RunTrainings

        images, population = self._images, self._population
        if images is None:
            images = build.load_images(self.scenario)
            population = build.deal_images(self.scenario, population, images)
        trainer = build.create_trainer(self.scenario, population, images, count_cores())
        self._data_label, self._population = images.label, population
        self._trainings = RunTrainings(self.scenario, population, trainer)
        return self._trainings.begin()

    def frame(self) -> Frame:
        """Return the state at this moment."""
        if self._back is None or self.round == self.market.round_index:
            return self.latest()
        then, history = self._past.at(self.round), self._history()
        return Frame(
            scenario=self.scenario,
            n_nodes=then.rho.size,
            round=then.round,
            nodes=np.arange(then.rho.size),
            rho=then.rho,
            epsilon=then.epsilon,
            payment=then.payment,
            utility=then.utility,
            exited=(then.exit_round != NEVER) & (then.exit_round < then.round),
            history={name: values[: then.round] for name, values in history.items()},
            form=then.form,
            priced=None if then.form["threshold"] else then.priced,
            by_cost=then.by_cost,
            training=self._training_curves(),
            note=self.training_problem,
        )

    def latest(self) -> Frame:
        """Return the state after the last round."""
        columns = self.market.columns
        return Frame(
            scenario=self.scenario,
            n_nodes=len(columns),
            round=self.market.round_index,
            nodes=np.arange(len(columns)),
            rho=columns.rho,
            epsilon=columns.epsilon,
            payment=columns.payment,
            utility=columns.utility,
            exited=columns.find_exited(self.market.round_index),
            history=self._history(),
            form=self.form,
            priced=None if self.form["threshold"] else self._priced.epsilon,
            by_cost=self._by_cost,
            training=self._training_curves(),
            note=self.training_problem,
        )

    def _history(self) -> dict[str, list[float]]:
        """Return the measures of all rounds."""
        data = self.market.datacollector.model_vars
        return {name: data[name] for name in _MEASURES} | self._list_learned()

    def _find_most_spent(self) -> float:
        """Return the total epsilon of the node that has spent most, under privacy.view."""
        ledger, privacy = getattr(self._rounds.training, "ledger", None), self.scenario.privacy
        if ledger is None:
            return 0.0
        central = privacy.view == "central"
        spent = ledger.central_epsilon if central else ledger.epsilon
        return float(spent(privacy.delta).max(initial=0.0))

    def _list_learned(self) -> dict[str, list[float]]:
        """Return the server's estimates after each round of the market, as in a record."""
        if self._learner is None:
            return {}
        rows, n_rounds = self._learner.rows, self.market.round_index
        columns = {name: [getattr(row, name) for row in rows] for name in _LEARNED}
        found = {
            name: [*values[:n_rounds], *[math.nan] * (n_rounds - len(values))]
            for name, values in columns.items()
        }
        stands = self._spent[-1:] or [math.nan]  # spending is constant after training
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
        """Return the reports of a node up to this moment."""
        return Path(*self._past.path(node, self.round))

    def exit_round(self, node: int) -> int | None:
        """Return the round at whose end a node exited."""
        columns = self.market.columns if self._back is None else self._past.at(self.round)
        round_index = columns.exit_round.item(node)
        return None if round_index == NEVER else round_index

    def record(self) -> Record:
        """Return the rounds played so far as a record, with the market's own training.

        Raises
        ------
        InvalidRecordError
            If no round has been played.
        """
        if not self.market.round_index:
            raise InvalidRecordError("No round has been played yet, so there is no record to save.")
        trained = None
        if self._trainings:
            trained = self._trainings.so_far(self.market, self._rounds, self.training_problem)
        record = collect_record(
            self.market,
            self._population,
            self._recorder,
            trained,
            self._learner,
            dict(self._seconds),
        )
        changes: dict[str, Any] = {"record": self._kept_settings, "sweep": None}
        if self.scenario.training:  # as it ran: without comparison trainings, or not at all
            so_far = {"compare": ()} if trained else {"compare": (), "enabled": False}
            changes["training"] = self.scenario.training.model_copy(update=so_far)
        return replace(record, scenario=self.scenario.model_copy(update=changes))
