"""What one training of a run shows round by round, and where it can be taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from fcfn_abm.dp import Ledger, spent_zcdp
from fcfn_abm.errors import RunFailedError, WorkersLostError
from fcfn_abm.records.tables import ZCDP_LEDGER, empty
from fcfn_abm.runs.checkpoint import Checkpoint
from fcfn_abm.runs.rounds import Rounds
from fcfn_abm.training import FederatedTrainer, Training, TrainingRound

type Floats = npt.NDArray[np.float64]


class TrainingLog:
    """Follows one training, and keeps where it stands.

    Parameters
    ----------
    name : str
        Of the comparison that the training is for: "stackelberg", "no-noise".
    trainer : FederatedTrainer
        Who trains.
    misreport : ndarray of float, shape (n_nodes,)
        Reported over spent epsilon of each node.
    private : bool
        Whether nodes add noise.
    checkpoint : Checkpoint, optional
        Where the training is taken up, and what keeps it for a later one.
    dealt : bytes, default b""
        Digest of the data and of who holds them (:func:`digest_data`): a training with other data
        is not taken up.
    every : int, default 1
        After how many rounds it is kept.
    keeps_spending : bool, default False
        Whether the privacy that nodes spend is kept round by round.
    """

    def __init__(
        self,
        name: str,
        trainer: FederatedTrainer,
        misreport: Floats,
        *,
        private: bool,
        checkpoint: Checkpoint | None = None,
        dealt: bytes = b"",
        every: int = 1,
        keeps_spending: bool = False,
    ) -> None:
        self.name, self._trainer, self._misreport = name, trainer, misreport
        self._private, self._every, self._keeps_spending = private, every, keeps_spending
        self._checkpoint, self._dealt = checkpoint, dealt
        self._kept = checkpoint.load(self._key) if checkpoint else None
        if self._kept is not None and self._kept["dealt"].tobytes() != self._dealt:
            self._kept = None  # the data have changed
        self._spent = [empty("ledger")]
        if self._kept is not None and keeps_spending:
            self._spent.append(_to_table(self._kept))
        self.training: Training | None = None
        self.broke_down = ""

    @property
    def _key(self) -> str:
        """Name of the checkpoint: a training is taken up where and how it began."""
        facts = self._trainer.engine.facts()
        by = "" if facts["engine"] == "serial" else f"-{facts['engine']}-{facts['device']}"
        return self.name + by

    @property
    def results(self) -> list[TrainingRound]:
        """How good the net was after each round."""
        return self.training.results if self.training else []

    @property
    def flagged_round(self) -> npt.NDArray[np.int64]:
        """Round in which the server's check flagged each node; zero where it did not."""
        if self.training is None:
            return np.zeros(len(self._trainer.shards), dtype=np.int64)
        return self.training.flagged_round

    @property
    def ledger(self) -> Ledger:
        """What nodes have released."""
        if self.training is None or self.training.ledger is None:
            return Ledger(len(self._trainer.shards))  # nobody has spent anything
        return self.training.ledger

    @property
    def spent(self) -> pd.DataFrame:
        """Privacy spent, one row a round and node that trained in it."""
        return pd.concat(self._spent, ignore_index=True)

    def begin(self) -> Training:
        """Begin the training, or take it up where it was kept."""
        self.training = self._trainer.begin(
            misreport=self._misreport, private=self._private, resume=self._kept
        )
        if self._kept is None:
            self.take_in(self.training.results[0])
        return self.training

    def follow(
        self,
        rounds: Rounds[Training],
        bar: tqdm[Any],
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take all rounds of a run that are left, and show how training goes.

        A training that breaks down ends; ``broke_down`` says why, and reports go on.
        """
        if rounds.trains_next:
            rounds.begin_training()
            self._show(bar, len(self.results))
        while not (rounds.over or stops()):
            try:
                result = rounds.step()
            except WorkersLostError:  # it did not break down, and can be taken up
                raise
            except RunFailedError as error:
                self.broke_down = str(error)
                rounds.stop_training()
                continue
            if result is not None:
                self.take_in(result)
                self._show(bar, 1)

    def _show(self, bar: tqdm[Any], n_rounds: int) -> None:
        accuracy = self.results[-1].accuracy
        bar.set_postfix(arm=self.name, accuracy=f"{accuracy:.1%}", refresh=False)
        bar.update(n_rounds)

    def take_in(self, result: TrainingRound) -> None:
        """Take in a round of the training, and keep where it stands if it is time to."""
        training, delta = self.training, self._trainer.plan.delta
        if training is None:
            return
        if self._keeps_spending and training.ledger and result.round:
            in_zcdp = self._trainer.plan.currency == "zcdp"
            spent_now = _list_spending(training.ledger, result.round, delta, in_zcdp=in_zcdp)
            self._spent.append(spent_now)
        due = result.round % self._every == 0
        if self._checkpoint and (due or training.over):
            spent = _to_arrays(self.spent) if self._keeps_spending else {}
            mark = {"dealt": np.frombuffer(self._dealt, dtype=np.uint8)}
            self._checkpoint.save(self._key, {**training.state(), **spent, **mark})


def _list_spending(
    ledger: Ledger, round_index: int, delta: float, *, in_zcdp: bool
) -> pd.DataFrame:
    """Return what the nodes of a round have spent: in it, and so far, in both views."""
    now = ledger.latest
    if now is None:
        return empty("ledger")
    return pd.DataFrame(
        {
            "round": round_index,
            "node": now.nodes,
            "epsilon_round": ledger.epsilon_of(now, delta),
            "epsilon_total": ledger.epsilon(delta, now.nodes),
            "epsilon_central": ledger.central_epsilon(delta, now.nodes),
            **(
                {
                    "zcdp_round": spent_zcdp(now.multipliers, now.n_releases),
                    "zcdp_total": ledger.zcdp(now.nodes),
                }
                if in_zcdp
                else {}
            ),
        }
    )


def _to_arrays(table: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
    return {f"spent_{name}": table[name].to_numpy() for name in table.columns}


def _to_table(arrays: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    names = [*empty("ledger").columns, *ZCDP_LEDGER]
    names = [name for name in names if f"spent_{name}" in arrays]
    return pd.DataFrame({name: arrays[f"spent_{name}"] for name in names})


def digest_data(trainer: FederatedTrainer) -> bytes:
    """Return what tells the data, and how they are dealt, from others."""
    data, found = trainer.data, hashlib.sha256()
    for images in (data.train_images, data.test_images):
        found.update(images.sum(axis=(1, 2, 3), dtype=np.float64).tobytes())
    for whole in (data.train_labels, data.test_labels, *trainer.shards):
        found.update(np.asarray(whole, dtype=np.int64).tobytes())
    return found.digest()
