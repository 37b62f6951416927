"""Trying candidates on held-out rows: a short training first, the whole one for few.

Successive halving on the same rows (Jamieson and Talwalkar, AISTATS 2016) with two
rungs. A candidate that is kept is trained anew and not further: schedules end with the
last step that they are planned for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from tqdm.auto import tqdm

from .candidates import Candidate
from .scores import HeldOut
from .trials import PLANNED, Bench, Clock, Trial

# The part of the epochs that the first rung has.
FIRST_RUNG = 0.25
# Of what the best gains over the class frequencies, a method must gain so much to stay.
KEEP = 0.5
# The part of the time after which no more candidates are begun on the first rung.
TRYING = 0.35


@contextmanager
def shown(clock: Clock, verbose: bool, title: str) -> Iterator[Callable]:
    """Yield what shows a step, the best so far and the time left, all in one bar."""
    begun: list[str] = []
    with tqdm(total=1, disable=not verbose) as bar:

        def tell(step: str, best: Trial | None, left: int) -> None:
            if begun:
                bar.update(1)  # the step before is over
            begun.append(step)
            bar.total = bar.n + left
            bar.set_description(step, refresh=False)
            about = {}
            if best is not None:
                about["best"] = f"{best.score:.3f} {best.name}"
            if clock.limit is not None:
                about["left"] = f"{max(0.0, clock.left):.0f} s"
            bar.set_postfix(about)

        yield tell
        bar.set_description(title)
        bar.update(1)


class Race:
    """Which candidates are trained how long, until the time is over.

    Parameters
    ----------
    bench : Bench
    candidates : sequence of Candidate
    held : HeldOut
        Scores predictions of the rows that are held out.
    floor : float
        The score of the class frequencies.
    clock : Clock
    refit : bool
        Whether members are fitted again afterwards, which takes time.
    tell : callable (str, best trial or None, steps left) -> None
        Called before each fit.
    """

    def __init__(
        self,
        bench: Bench,
        candidates: Sequence[Candidate],
        held: HeldOut,
        floor: float,
        clock: Clock,
        refit: bool,
        tell: Callable,
    ):
        self.bench, self.held, self.floor = bench, held, floor
        self.clock, self.refit, self.tell = clock, refit, tell
        self.trials = [Trial(candidate) for candidate in candidates]
        # Behind loading encoders and decoding images, which is not for candidates.
        self.whole = clock.left
        self._part: float | None = None

    @property
    def best(self) -> Trial | None:
        """The best so far."""
        done = [t for t in self.trials if t.status == "fitted"]
        return max(done, key=lambda t: t.key, default=None)

    def run(self) -> list[Trial]:
        """Try all, drop those far behind and train the others to the end."""
        self._first_rung()
        self._drop()
        self._last_rung()
        return self.trials

    def _first_rung(self) -> None:
        for i, trial in enumerate(self.trials):
            epochs = self._first_epochs(trial)
            expected = self._expected(trial, epochs)
            # One there must be, whatever the limit says.
            reason = self._too_late(trial, expected) if self.best else ""
            if reason:
                trial.end("skipped", reason)
                continue
            self._fit(trial, epochs, len(self.trials) - i)

    def _too_late(self, trial: Trial, expected: float) -> str:
        clock = self.clock
        if clock.left <= 0 or expected > PLANNED * clock.left:
            return f"time: about {expected:.1f} s, {max(0, clock.left):.1f} s are left"
        trained = trial.candidate.epochs is not None
        over = expected / 2 > clock.left - (1 - TRYING) * self.whole
        begun = any(t.epochs for t in self.trials)
        # One that is trained in epochs may always begin, or all time would be waste.
        if trained and over and begun:
            return "time: kept for training the better ones"
        return ""

    def _first_epochs(self, trial: Trial) -> int | None:
        """Passes on the first rung: few enough for each method to have its turn."""
        whole = trial.candidate.epochs
        if whole is None:
            return None
        if self._part is None:
            self._part = self._affordable_part(trial)
        return max(1, round(self._part * whole))

    def _affordable_part(self, trial: Trial) -> float:
        if self.clock.limit is None:
            return FIRST_RUNG
        firsts = [t.candidate for t in self.trials if t.candidate.order == 0]
        turns = [c for c in firsts if c.epochs]
        weight = sum((c.cost or 1) * c.epochs for c in turns)
        one = self._expected(trial, 1) / (trial.candidate.cost or 1)
        room = self.clock.left - (1 - TRYING) * self.whole
        return min(FIRST_RUNG, max(0.0, room) / max(weight * one, 1e-9))

    def _expected(self, trial: Trial, epochs: int | None) -> float:
        """Seconds that a fit will take, from those that were measured; 0 if unknown."""
        known = [t for t in self.trials if t.status in ("fitted", "dropped")]
        kin = [t for t in known if t.candidate.family == trial.candidate.family]
        alike = kin or [t for t in known if t.epochs] or known
        rates = [
            t.seconds_per_epoch
            * (1 if kin else trial.candidate.cost / t.candidate.cost)
            for t in alike
            if kin or t.candidate.cost
        ]
        return max(rates, default=0.0) * (epochs or 1)

    def _fit(self, trial: Trial, epochs: int | None, steps: int) -> None:
        name = trial.name if epochs is None else f"{trial.name} ({epochs} epochs)"
        self.tell(name, self.best, steps)
        try:
            self.bench.run(trial, epochs, PLANNED * self.clock.left)
        except Exception as error:  # whatever a candidate may raise
            reason = f"{type(error).__name__}: {error}"
            if trial.status == "fitted":
                # Its short training was good: what failed is the long one.
                trial.reason = f"stays at {trial.epochs} epochs, {reason}"
            else:
                trial.end("failed", reason)
            return
        trial.status, trial.reason = "fitted", ""
        trial.score = self.held.score(trial.outputs)
        trial.key = self.held.key(trial.outputs)

    def _drop(self) -> None:
        """Keep the best rate of each family, and families that are not far behind.

        Compared with one another only: a linear probe is solved to the end.
        """
        running = [t for t in self.trials if t.status == "fitted" and self._is_short(t)]
        running.sort(key=lambda t: t.key, reverse=True)
        kept: dict[str, Trial] = {}
        for trial in running:
            best = running[0]
            kin = kept.setdefault(trial.candidate.family, trial)
            if kin is not trial:
                reason = f"{kin.name} is ahead after {kin.epochs} epochs"
                trial.end("dropped", reason)
            elif trial.score < self.floor + KEEP * (best.score - self.floor):
                reason = f"far behind {best.name} after {trial.epochs} epochs"
                trial.end("dropped", reason)

    def _is_short(self, trial: Trial) -> bool:
        return trial.epochs is not None and trial.epochs < trial.candidate.epochs

    def _last_rung(self) -> None:
        waiting = [t for t in self.trials if t.status == "fitted" and self._is_short(t)]
        waiting.sort(key=lambda t: t.key, reverse=True)
        for i, trial in enumerate(waiting):
            epochs = self._affordable(trial)
            if epochs <= trial.epochs:
                trial.reason = f"time: stays at {trial.epochs} epochs"
                continue
            self._fit(trial, epochs, len(waiting) - i)
            if trial.epochs < trial.candidate.epochs and not trial.reason:
                trial.reason = f"time: {trial.epochs} epochs"

    def _affordable(self, trial: Trial) -> int:
        """Epochs that there is time for, beside fitting again what is best so far."""
        left = PLANNED * self.clock.left
        if not np.isfinite(left):
            return trial.candidate.epochs
        if self.refit and not self._is_short(self.best):
            again = self.best.seconds * 1.3
            left -= again if again < left / 2 else 0.0
        return min(trial.candidate.epochs, int(left / trial.seconds_per_epoch))
