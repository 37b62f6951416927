"""Which task: the sum over its groups, whatever order and number they have."""

import torch

from robustmm.adapters import ClassGaussians, ClassMoments, TaskFinder

SIZES, WIDTHS = (2, 1, 3), (4, 3)


def learned(seed=0):
    """Moments of three tasks, and the rows that they are of."""
    generator = torch.Generator().manual_seed(seed)
    tasks, everything = [], []
    for size in SIZES:
        moments = ClassMoments(size, WIDTHS)
        groups = torch.arange(12) % size
        vectors = [
            torch.randn(12, width, generator=generator)
            + 2 * torch.randn(size, width, generator=generator)[groups]
            for width in WIDTHS
        ]
        present = torch.rand(12, 2, generator=generator) > 0.3
        present[:, 0] |= ~present[:, 1]
        moments.update(vectors, present, torch.eye(size)[groups])
        tasks.append(moments)
        everything.append((vectors, present))
    return tasks, everything


def test_probabilities_are_those_of_all_groups():
    tasks, everything = learned()
    finder = TaskFinder(tasks)
    finder.set(tasks, 0.2)
    vectors, present = everything[2]
    found = finder(vectors, present)
    logits = ClassGaussians.of(tasks, 0.2)(vectors, present).double()
    groups = logits.softmax(dim=1).split(SIZES, dim=1)
    expected = torch.stack([own.sum(dim=1) for own in groups], dim=1)
    torch.testing.assert_close(
        found.tasks.exp().double(), expected, atol=1e-4, rtol=1e-3
    )
    for own, whole in zip(found.classes, groups, strict=True):
        torch.testing.assert_close(
            own.exp().sum(dim=1), torch.ones(12), atol=1e-4, rtol=1e-4
        )
        within = whole / whole.sum(dim=1, keepdim=True)
        torch.testing.assert_close(own.exp().double(), within, atol=1e-3, rtol=1e-2)


def test_the_order_of_tasks_changes_nothing():
    tasks, everything = learned()
    scores = []
    for order in ([0, 1, 2], [2, 0, 1]):
        some = [tasks[i] for i in order]
        finder = TaskFinder(some)
        finder.set(some, "oas")
        found = finder(*everything[1]).tasks
        scores.append(found[:, torch.tensor(order).argsort()])
    torch.testing.assert_close(*scores, atol=1e-3, rtol=1e-3)


def test_nothing_of_it_is_trained():
    tasks, _ = learned()
    finder = TaskFinder(tasks)
    finder.set(tasks, 0.2)
    assert list(finder.parameters())
    assert not any(p.requires_grad for p in finder.parameters())
