"""The skorch net: losses, schedules, best weights and interrupts."""

import operator
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from contract import frame_with_holes, small
from points import Linear, Points, make
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import default_collate

from robustmm import MAPClassifier, MSPClassifier
from robustmm.training.clock import Clock
from robustmm.training.net import Net, history_frame


class Named(nn.Module):
    """Says what it was given."""

    def forward(self, **batch):
        return {name: value.device.type for name, value in batch.items()}


def test_keys_of_images_are_nothing_for_the_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    net = Net(Named(), criterion=nn.CrossEntropyLoss, device="meta")
    vars(net)["module_"] = net.module
    x = {"present": torch.ones(2, 2), "row": torch.arange(2)}
    x["image_key"] = torch.zeros(2, 20, dtype=torch.uint8)
    expected = {"present": "meta"}
    assert net.call(operator.call, x) == expected
    del x["image_key"]
    assert net.call(operator.call, x) == expected


class Damaged(Points):
    """Points of which two have an image that cannot be read."""

    def __init__(self):
        super().__init__()
        self.reasons = {3: "no such file", 7: "it is empty"}


def test_images_that_are_bad_while_training_are_remembered():
    def collate(items):
        batch, y = default_collate(items)
        bad = [data.reasons.get(row) for row in batch["row"].tolist()]
        return batch | ({"bad": np.array(bad, dtype=object)} if any(bad) else {}), y

    data = Damaged()
    net = make(iterator_train__collate_fn=collate, max_epochs=2).fit(data)
    assert net.damaged_ == data.reasons
    assert make().fit(Points()).damaged_ == {}


def test_a_copy_stays_on_the_host_for_modules_that_read_it(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    net = Net(Named(), criterion=nn.CrossEntropyLoss, device="meta")
    vars(net)["module_"] = net.module
    x = {"present": torch.ones(2, 2), "image_key": torch.zeros(2, 20)}
    x["sample_weight"] = torch.ones(2)
    assert net.call(operator.call, x) == {"present": "meta"}
    net.module_.reads_host = True
    found = net.call(lambda module, **batch: batch, x)
    assert found["present"].device.type == "meta"
    assert found["host"].present is x["present"]
    assert found["host"].image_key is x["image_key"]
    assert set(found) == {"present", "host"}


def losses(net):
    return [row["train_loss"] for row in net.history]


def test_loss_is_the_weighted_mean_plus_the_penalty():
    net = make(lr=0.0).fit(Points())
    plain = losses(net)[0]
    heavy = make(lr=0.0)
    torch.manual_seed(0)
    heavy.initialize().module_.load_state_dict(net.module_.state_dict())
    heavy.partial_fit(Points(weight=3.0))
    assert losses(heavy)[0] == pytest.approx(3 * plain)
    penalised = make(penalty=0.25, lr=0.0).initialize()
    penalised.module_.load_state_dict(net.module_.state_dict())
    penalised.partial_fit(Points())
    assert losses(penalised)[0] == pytest.approx(plain + 0.25)


def test_multilabel_loss_is_the_mean_over_labels():
    net = make(criterion=nn.BCEWithLogitsLoss).initialize()
    logits, y = torch.randn(5, 2), torch.randint(0, 2, (5, 2)).float()
    weight = torch.arange(5.0)
    expected = (
        nn.BCEWithLogitsLoss(reduction="none")(logits, y).mean(1) * weight
    ).mean()
    got = net.get_loss(logits, y, X={"sample_weight": weight})
    torch.testing.assert_close(got, expected)


def test_only_what_needs_a_gradient_is_optimised():
    net = make().initialize()
    trained = net.optimizer_.param_groups[0]["params"]
    assert {id(p) for p in trained} == {id(p) for p in net.module_.head.parameters()}


class Poison(Callback):
    """Makes a trained weight NaN behind the last step of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, net, training=False, **kwargs):
        last = len(net.history[-1]["batches"]) == 3
        if training and last and len(net.history) == self.epoch:
            net.module_.head.bias.data[0] = torch.nan


class Epochs(Callback):
    """Counts the epochs that ended."""

    ended = 0

    def on_epoch_end(self, net, **kwargs):
        self.ended += 1


@pytest.mark.parametrize(
    ("options", "found"),
    [({"penalty": float("inf")}, "inf"), ({"lr": float("inf")}, "nan")],
)
def test_a_loss_that_is_not_finite_ends_the_training(options, found):
    net = make(owner="MAILClassifier", callbacks=[Epochs()], **options)
    message = (
        f"^MAILClassifier must train with finite losses, got train_loss={found} in "
        rf"epoch 1\. Lower lr, {net.lr} now, pass precision=.float32., or look at"
    )
    with pytest.raises(ValueError, match=message):
        net.fit(Points())
    assert dict(net.callbacks_)["Epochs"].ended == 0


@pytest.mark.parametrize("epoch", [1, 3])
def test_weights_that_are_not_finite_end_it_before_the_next_loss(epoch):
    net = make(callbacks=[Poison(epoch), Epochs()])
    message = f"finite losses, got weights that are not finite behind epoch {epoch}"
    with pytest.raises(ValueError, match=message):
        net.fit(Points())
    assert dict(net.callbacks_)["Epochs"].ended == epoch - 1


def test_a_validation_loss_that_is_not_finite_ends_the_training():
    held_out = Points()
    held_out.x[5] = torch.inf
    net = make(train_split=predefined_split(held_out), callbacks=[Epochs()])
    with pytest.raises(ValueError, match="got valid_loss=nan in epoch 1"):
        net.fit(Points())
    assert dict(net.callbacks_)["Epochs"].ended == 0


def test_interrupt_propagates():
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(callbacks=[Interrupt()]).fit(Points())


def test_early_stopping_of_skorch_is_no_interrupt():
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0, sink=str)
    net = make(callbacks=[stop], max_epochs=20).fit(Points())
    assert len(net.history) == 2


def test_memory_of_the_training_is_released():
    net = make(optimizer=torch.optim.AdamW).fit(Points())
    assert net.optimizer_.state
    net.release_training_memory()
    assert not net.optimizer_.state
    assert all(p.grad is None for p in net.module_.parameters())


class Asked(Linear):
    """Tells apart how it was called."""

    def forward(self, x, scale=1.0):
        return super().forward(x) * scale

    def twice(self, x, power=1):
        return 2 * self.head(x) ** power


def batch_of(n=5):
    data = Points(n)
    return {"x": data.x, "sample_weight": data.weight, "row": torch.arange(n)}


def test_evaluate_reads_logits_or_what_a_function_says():
    net = make(module=Asked()).initialize()
    batch, module = batch_of(), net.module_
    with torch.no_grad():
        logits, other = module(batch["x"]), module.twice(batch["x"], power=3)
    torch.testing.assert_close(net.evaluate(batch), logits)
    cubed = partial(Asked.twice, power=3)
    torch.testing.assert_close(net.evaluate(batch, cubed), other)
    head = net.evaluate(batch, lambda module, x: module.head(x))
    torch.testing.assert_close(2 * head**3, other)


def test_a_module_is_told_more_while_it_is_trained_only():
    net = make(module=Asked(), forward_params={"scale": 0.0}, lr=0.0)
    net.fit(Points())
    assert losses(net) == pytest.approx([np.log(2)] * 3)
    assert net.evaluate(batch_of()).abs().min() > 0
    net.release_training_memory()
    batch = batch_of()
    torch.testing.assert_close(net.infer(batch).detach(), net.evaluate(batch))


def test_the_mode_is_switched_only_where_it_has_to_be(monkeypatch):
    net, switched = make().initialize(), []
    switch = Net._set_training

    def counted(net, training=True):
        switched.append(training)
        switch(net, training)

    monkeypatch.setattr(Net, "_set_training", counted)
    net.module_.train()
    for _ in range(3):
        net.evaluate(batch_of())
    assert switched == [False]


def test_no_thread_sees_a_module_half_switched():
    """The outermost module says first that it is in evaluation mode."""

    class Slow(nn.Module):
        def train(self, mode=True):
            time.sleep(0.02)
            return super().train(mode)

        def forward(self, x):
            return x * (0.0 if self.training else 1.0)

    class Outer(Linear):
        def __init__(self):
            super().__init__()
            self.slow = Slow()

        def forward(self, x):
            return self.slow(super().forward(x))

    net = make(module=Outer()).initialize()
    net.module_.train()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(net.evaluate, [batch_of()] * 4))
    for logits in results:
        assert torch.equal(logits, net.evaluate(batch_of()))


class Slow(Clock):
    """A clock that only goes on when it is told to."""

    def __init__(self, limit):
        super().__init__(limit)
        self.now = 0.0

    def seconds(self):
        return self.now


class Tick(Callback):
    """Each step takes a second, each pass over held-out rows ``closing``."""

    def __init__(self, clock, closing=0.0):
        self.clock, self.closing = clock, closing
        self.epochs = []

    def on_batch_end(self, net, training=False, **kwargs):
        self.clock.now += float(training)

    def on_epoch_end(self, net, **kwargs):
        self.clock.now += self.closing
        self.epochs.append(len(net.history))


@pytest.mark.parametrize(
    ("limit", "closing", "steps", "cut"),
    [
        (0.5, 0.0, [1], True),
        (2.0, 0.0, [2], True),
        (3.0, 0.0, [3], True),
        (4.5, 0.0, [3, 2], True),
        (9.0, 0.0, [3, 3, 3], False),
        (100.0, 0.0, [3, 3, 3], False),
        # What follows the second epoch is foreseen.
        (7.5, 1.0, [3, 3], True),
        (6.5, 1.0, [3, 2], True),
    ],
)
def test_a_training_ends_when_its_time_is_spent(limit, closing, steps, cut):
    clock = Slow(limit)
    tick = Tick(clock, closing)
    net = make(callbacks=[tick], clock=clock).fit(Points())
    assert [len(row["batches"]) for row in net.history] == steps
    assert [row["epoch"] for row in net.history] == [*range(1, len(steps) + 1)]
    assert tick.epochs == [*range(1, len(steps) + 1)]
    assert net.cut_ is cut
    assert np.isfinite(losses(net)).all()


def test_rows_are_made_ready_before_a_training():
    seen = []

    def start(net, rows):
        seen.append((rows, len(net.history)))

    points = Points()
    net = make(start=start).fit(points)
    assert seen == [(points, 0)]
    net.release_training_memory()
    assert net.start is None


def test_what_a_step_is_given_may_lack_cells():
    class Halved:
        def __call__(self, batch, module):
            assert module.training is False or module.training is True
            return {**batch, "x": batch["x"] * 0.5}

    class Seen(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            seen[training].append(batch[0]["x"])

    seen = {True: [], False: []}
    given = []

    class Asking(Linear):
        def forward(self, x):
            given.append((self.training, x))
            return super().forward(x)

    split = predefined_split(Points(4))
    options = {"train_split": split, "max_epochs": 1, "callbacks": [Seen()]}
    make(module=Asking(), modality_dropout=Halved(), **options).fit(Points())
    trained = torch.cat([x for training, x in given if training])
    held = torch.cat([x for training, x in given if not training])
    # The batch is the caller's: it stays as it was.
    torch.testing.assert_close(trained, 0.5 * torch.cat(seen[True]))
    torch.testing.assert_close(held, torch.cat(seen[False]))


def test_the_table_has_the_last_rate_of_the_training():
    class Rate(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                net.history.record_batch("event_lr", 1.0 / len(net.history))

    split = predefined_split(Points(4))
    net = make(train_split=split, callbacks=[Rate()]).fit(Points())
    assert history_frame(net)["lr"].tolist() == [1.0, 0.5, 1 / 3]
    assert history_frame(make().fit(Points()))["lr"].tolist() == [0.1] * 3


@pytest.mark.parametrize("size", [1, 3, 5, 64])
def test_parts_of_a_batch_add_up_to_its_step(size):
    X, y = frame_with_holes(16)
    options = {"batch_size": 8, "max_epochs": 2, "lr": 1e-2}
    whole = small(MAPClassifier, **options).fit(X, y)
    parts = small(MAPClassifier, micro_batch_size=size, **options).fit(X, y)
    np.testing.assert_allclose(
        parts.history_["train_loss"], whole.history_["train_loss"], rtol=1e-4
    )
    np.testing.assert_allclose(
        parts.decision_function(X), whole.decision_function(X), atol=2e-3
    )


def test_parts_of_a_batch_are_of_the_size_asked_for(monkeypatch):
    X, y = frame_with_holes(16)
    seen = []

    def infer(self, x, **params):
        if self.module_.training:
            seen.append(len(x["present"]))
        return plain(self, x, **params)

    plain = Net.infer
    monkeypatch.setattr(Net, "infer", infer)
    weights = np.linspace(0.1, 2, 16)
    small(MSPClassifier, batch_size=16, micro_batch_size=6).fit(X, y, weights)
    assert seen == [6, 6, 4]
    with pytest.raises(ValueError, match=r"micro_batch_size must be in \[1"):
        small(MSPClassifier, micro_batch_size=0).fit(X, y)
