"""Gram adapters: equations, gradients, starts and merging."""

import itertools

import pytest
import torch
from torch import nn

from robustmm.adapters.gram import GRAMS, PARAMETRIZATIONS, GramLinear, GramPair

WIDTHS = {"image": 12, "text": 8}


def linear(side, dtype=torch.float64):
    return nn.Linear(WIDTHS[side], WIDTHS[side]).to(dtype).requires_grad_(False)


def pair(gram="cross", rank=2):
    return GramPair(WIDTHS["image"], WIDTHS["text"], rank, gram).double()


def adapter(side="image", shared=None, **options):
    options = {"rank": 2, "strength": 0.1} | options
    return GramLinear(linear(side), shared, side, **options).double()


def norms(weight):
    return weight.norm(dim=0, keepdim=True)


def perturb(module):
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize(("own", "other"), [("image", "text"), ("text", "image")])
def test_updates_are_those_of_equation_4(own, other):
    made = pair()
    s, t = made.factors[own], made.factors[other]
    torch.testing.assert_close(made.update(own), s.T @ (t @ t.T) @ s)
    made.gram = "own"
    torch.testing.assert_close(made.update(own), s.T @ (s @ s.T) @ s)
    made.gram = "identity"
    torch.testing.assert_close(made.update(own), s.T @ s)
    free = perturb(pair("learnable"))
    s = free.factors[own]
    torch.testing.assert_close(free.update(own), s.T @ free.grams[own] @ s)


def test_column_norm_weight_is_the_authors():
    made = perturb(adapter(shared=pair()))
    w0 = made.frozen.weight
    shared = w0 + 0.1 * made.pair.update("image").T
    specific = w0 + 0.1 * made.up @ made.down
    expected = made.magnitudes["shared"] * shared / norms(shared)
    expected = expected + made.magnitudes["specific"] * specific / norms(specific)
    torch.testing.assert_close(made.weight(), expected)
    made.residual = True
    torch.testing.assert_close(made.weight(), expected - w0)


def test_additive_weight_is_equation_4():
    made = perturb(adapter("text", pair(), parametrization="additive"))
    total = made.magnitudes["shared"] + made.magnitudes["specific"]
    expected = total * made.frozen.weight + 0.1 * (
        made.pair.update("text") + made.up @ made.down
    )
    torch.testing.assert_close(made.weight(), expected)
    assert made.magnitudes["shared"].shape == (1,)


def test_official_start_is_the_frozen_weight_plus_one_of_equal_column_norms():
    made = adapter(shared=pair())
    w0 = made.frozen.weight
    torch.testing.assert_close(norms(made.weight() - w0), norms(w0))
    assert (made.weight() - 2 * w0).norm() > 0.1 * w0.norm()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("branches", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_identity_start_is_close_to_the_frozen_weight(
    parametrization, branches, residual
):
    shared = pair() if branches[0] else None
    made = adapter(
        shared=shared,
        rank=2 if branches[1] else 0,
        parametrization=parametrization,
        residual=residual,
        halved=True,
    )
    if shared is not None:
        shared.shrink([made], 1e-2)
    error = (made.weight() - made.frozen.weight).norm() / made.frozen.weight.norm()
    # A branch starts at up to twice the frozen weight where that is subtracted again.
    assert error < ((1 + residual) * 1.001e-2 if branches[0] else 1e-12)


@pytest.mark.parametrize("gram", GRAMS)
def test_shrink_reaches_the_tolerance_at_the_largest_and_stays_above_zero(gram):
    shared = pair(gram)
    adapters = [adapter(side, shared) for side in WIDTHS for _ in range(2)]
    shared.shrink(adapters, 1e-2)
    ratios = [
        float(a.shared_update().detach().norm() / a.frozen.weight.norm())
        for a in adapters
    ]
    assert max(ratios) == pytest.approx(1e-2)
    assert min(ratios) > 0


def gradient_of_factors(shared):
    made = adapter(shared=shared)
    made(torch.randn(5, 12, dtype=torch.float64)).square().sum().backward()
    return [shared.factors[side].grad for side in WIDTHS]


def test_zero_factors_get_no_gradient_and_small_ones_do():
    shared = pair()
    with torch.no_grad():
        for factor in shared.factors.values():
            factor.zero_()
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradient_of_factors(shared))
    shared = pair()
    with torch.no_grad():
        for factor in shared.factors.values():
            factor.mul_(1e-2)
    assert all(g.abs().max() > 0 for g in gradient_of_factors(shared))


def test_one_zero_factor_takes_all_gradients():
    shared = pair()
    with torch.no_grad():
        shared.factors["image"].zero_()
    assert all(not g.any() for g in gradient_of_factors(shared))


@pytest.mark.parametrize(
    ("gram", "parametrization"), list(itertools.product(GRAMS, PARAMETRIZATIONS))
)
def test_gradients_are_right(gram, parametrization):
    shared = pair(gram)
    made = perturb(adapter(shared=shared, parametrization=parametrization))
    parameters = [p for p in made.parameters() if p.requires_grad and p.numel() > 1]
    x = torch.randn(3, 12, dtype=torch.float64)

    def output(*_):
        return made(x)

    assert torch.autograd.gradcheck(output, tuple(parameters), fast_mode=True)


def test_merging_is_exact_and_training_forgets_it():
    made = perturb(adapter(shared=pair(), dropout=0.5)).eval()
    x = torch.randn(4, 12, dtype=torch.float64)
    before = made(x)
    made.merge()
    assert "merged" not in made.state_dict()
    assert not made.merged.requires_grad
    torch.testing.assert_close(made(x), before, rtol=0, atol=0)
    with torch.no_grad():
        made.up.add_(1)
    torch.testing.assert_close(made(x), before)
    assert made.train().merged is None
    assert not torch.allclose(made.eval()(x), before)


def test_dropout_falls_on_the_frozen_path_too():
    made = adapter(shared=pair(), dropout=1.0)
    x = torch.randn(4, 12, dtype=torch.float64)
    torch.testing.assert_close(made(x), made.frozen.bias.expand(4, -1))
    assert not torch.allclose(made.eval()(x), made.frozen.bias.expand(4, -1))


def test_autocast_does_not_touch_the_weight():
    made = adapter(shared=pair()).float()
    full = made.weight()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made.weight(), full)
        assert made(torch.randn(2, 12)).dtype == torch.bfloat16


def test_a_shared_update_needs_a_square_layer():
    with pytest.raises(ValueError, match=r"must be square, got .*\(6, 12\)"):
        GramLinear(nn.Linear(12, 6), GramPair(12, 8, 2), "image", rank=2)
    out = GramLinear(nn.Linear(12, 6), None, "image", rank=2)(torch.zeros(3, 12))
    assert out.shape == (3, 6)


def test_all_of_an_adapter_on_another_device_is_trained():
    frozen = nn.Linear(12, 12, device="meta").requires_grad_(False)
    made = GramLinear(frozen, None, "image", rank=2)
    trained = {name for name, p in made.named_parameters() if p.requires_grad}
    assert trained == {"down", "up", "magnitudes.specific"}
    assert made.down.device == frozen.weight.device
