"""A reservoir: as many rows as it holds, each as likely, and each as it was."""

import torch

from robustmm.adapters import ReservoirMemory, reservoir_slots


def test_every_row_of_the_past_is_kept_as_often():
    kept = torch.zeros(30)
    for _ in range(2000):
        rows, seen = {}, 0
        for n_new in (7, 3, 20):
            slots = reservoir_slots(seen, n_new, capacity=5)
            rows |= {slot: seen + row for slot, row in slots.items()}
            seen += n_new
        assert sorted(rows) == [0, 1, 2, 3, 4]
        kept[list(rows.values())] += 1
    share = kept / 2000
    # A sixth each, with a standard error of 0.008.
    assert (share - 5 / 30).abs().max() < 0.035


def test_rows_of_any_length_come_back_as_they_were():
    memory = ReservoirMemory(width=3)
    rows = [torch.randn(n, 3) for n in (4, 1, 2)]
    memory.put({0: 0, 1: 1, 2: 2}, rows, 0, torch.tensor([[1], [0], [2]]))
    other = torch.randn(6, 3)
    memory.put({1: 0, 3: 0}, [other], 2, torch.tensor([[1, 1]]))
    expected = [rows[0], other, rows[2], other]
    states, mask, stages, targets = memory.take(torch.tensor([3, 2, 1, 0]))
    for place, slot in enumerate([3, 2, 1, 0]):
        assert torch.equal(states[place][mask[place]], expected[slot])
        assert (states[place][~mask[place]] == 0).all()
    assert stages.tolist() == [2, 0, 2, 0]
    assert targets.tolist() == [[1, 1], [2, 0], [1, 1], [1, 0]]
    assert memory.sizes == (4, 18, 2)


def test_a_memory_of_the_same_sizes_loads_it():
    memory = ReservoirMemory(width=3)
    memory.put({0: 0}, [torch.randn(4, 3)], 1, torch.tensor([[1]]))
    twin = ReservoirMemory(3, *memory.sizes)
    twin.load_state_dict(memory.state_dict())
    one, other = (m.take(torch.tensor([0])) for m in (memory, twin))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
