"""The skorch net: losses, schedules, best weights and interrupts."""

import operator
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import Dataset, default_collate

from robustmm.training.net import BestWeights, Net, learning_rate_factor


class Points(Dataset):
    def __init__(self, n=12, weight=1.0):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 3, generator=generator)
        self.weight = torch.full((n,), float(weight))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        item = {"x": self.x[i], "sample_weight": self.weight[i], "row": i}
        return item, int(self.x[i].sum() > 0)


class Linear(nn.Module):
    def __init__(self, penalty=None):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 2)
        self.penalty = penalty

    def forward(self, x):
        logits = self.head(self.frozen(x))
        if self.penalty is None or not self.training:
            return logits
        return logits, torch.tensor(self.penalty)


def make(penalty=None, module=None, **params):
    defaults = {
        "criterion": nn.CrossEntropyLoss,
        "criterion__reduction": "none",
        "lr": 0.1,
        "max_epochs": 3,
        "batch_size": 4,
        "train_split": None,
        "callbacks__print_log": None,
        "verbose": 0,
    }
    return Net(module or Linear(penalty), **defaults | params)


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


def test_best_weights_come_back():
    seen = {}

    class Worse(Callback):
        """Pretend that every epoch after the first is worse."""

        def on_epoch_end(self, net, **kwargs):
            epoch = len(net.history)
            net.history.record("valid_loss", float(epoch))
            seen[epoch] = net.module_.head.weight.detach().clone()

    net = make(callbacks=[Worse(), BestWeights(2)], max_epochs=9).fit(Points())
    assert len(net.history) == 3
    assert torch.equal(net.module_.head.weight, seen[1])
    assert not torch.equal(seen[1], seen[3])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.5]),
        ("cosine", [0.5, 1, 1, 0.5]),
        ("polynomial", [0.5, 1, 1, 0.5**0.9]),
        ("held_polynomial", [0.1, 0.1, 1, 0.5**0.9]),
    ],
)
def test_schedules(schedule, expected):
    factor = learning_rate_factor(schedule, warmup=0.5, n_steps=4)
    np.testing.assert_allclose([factor(step) for step in range(4)], expected)


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
