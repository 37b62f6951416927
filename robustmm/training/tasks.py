"""scikit-learn's callbacks, told of the whole fit and of each epoch; from 1.9 on."""

from __future__ import annotations

from collections.abc import Callable

from skorch.callbacks import Callback

from .net import EarlyStop, history_frame

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9: no ``set_callbacks``, nothing to tell

    class CallbackSupportMixin:
        """Stands in for scikit-learn's mixin."""

    def with_callbacks(method: Callable) -> Callable:
        """Return the method as it is."""
        return method


class FitTasks(CallbackSupportMixin):
    """Mixin of an estimator whose ``fit`` is a task and each epoch a subtask of it."""

    @with_callbacks
    def _fit_as_task(self, fit: Callable[[], None], X, y, sample_weight) -> None:
        """Call ``fit()``, and the callbacks before and, unless it raises, after it."""
        if not hasattr(self, "_skl_callbacks"):
            return fit()
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        told = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        # A method that does not take the parameter may have no epochs at all.
        has_epochs = "max_epochs" in self.get_params(deep=False)
        n_epochs = self.max_epochs if has_epochs else None
        root = self._init_callback_context(max_subtasks=n_epochs)
        root.call_on_fit_task_begin(**told)
        self._epoch_tasks = EpochTasks(root, told)
        try:
            fit()
        finally:
            # Also after an error: the net keeps its callbacks, and they the whole
            # table.
            self.__dict__.pop("_epoch_tasks").forget()
        root.call_on_fit_task_end(**told, reconstruction_attributes={})

    def _with_epoch_tasks(self, callbacks: list[Callback]) -> list[Callback]:
        """Add what tells scikit-learn's callbacks of epochs to those of skorch."""
        tasks = getattr(self, "_epoch_tasks", None)
        # Told before another callback ends the training, stopped after all were called.
        return callbacks if tasks is None else [tasks, *callbacks, _Stop(tasks)]


class EpochTasks(Callback):
    """Make each epoch a subtask of ``root``.

    Parameters
    ----------
    root : sklearn.callback.CallbackContext
        The context of the whole fit.
    told : dict
        What every callback is told: the estimator and its data.
    """

    def __init__(self, root, told: dict):
        self.root = root
        self.told = told

    def on_train_begin(self, net, X=None, y=None, **kwargs) -> None:
        """Forget an earlier wish to stop."""
        self.stop_ = False

    def on_epoch_begin(self, net, **kwargs) -> None:
        """Open a subtask."""
        self.task_ = self.root.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(**self.told)

    def on_epoch_end(self, net, **kwargs) -> None:
        """Close it; what callbacks may want to score is the estimator as it is now."""
        # A function, so that the frame is made only where a callback asks for it.
        self.stop_ = self.task_.call_on_fit_task_end(
            **self.told, reconstruction_attributes=lambda: _fitted_so_far(net)
        )

    def forget(self) -> None:
        """Let go of the data: the net keeps its callbacks when the fit is over."""
        self.root = self.told = self.task_ = None


class _Stop(Callback):
    """End the training after an epoch for which ``tasks`` were told to stop."""

    def __init__(self, tasks: EpochTasks):
        self.tasks = tasks

    def on_epoch_end(self, net, **kwargs) -> None:
        if self.tasks.stop_:
            raise EarlyStop


def _fitted_so_far(net) -> dict:
    return {"net_": net, "n_iter_": len(net.history), "history_": history_frame(net)}
