"""Devices by name, precision, and random numbers that are a fit's own."""

import threading

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from robustmm.training import device as devices
from robustmm.training.device import (
    RandomStream,
    attention_of_any_shape,
    autocast_type,
    generator_states,
    resolve_device,
    set_generator_states,
)

CPU = torch.device("cpu")


def pretend(monkeypatch, **counts):
    """Let this machine have so many devices of a kind."""
    monkeypatch.setattr(
        devices, "_count", lambda kind: {"cpu": 1, **counts}.get(kind, 0)
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({}, "cpu"), ({"mps": 1}, "mps"), ({"cuda": 2, "mps": 1}, "cuda")],
    ids=str,
)
def test_auto_takes_the_fastest_there_is(monkeypatch, counts, expected):
    pretend(monkeypatch, **counts)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu", "hpu", "meta", "xla"])
def test_an_absent_device_is_refused_by_name(monkeypatch, name):
    pretend(monkeypatch)
    with pytest.raises(ValueError, match=f"device='{name}', but this machine has 0"):
        resolve_device(name)


def test_the_second_of_one_is_absent(monkeypatch):
    pretend(monkeypatch, cuda=1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ValueError, match="this machine has 1 CUDA devices"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", 3.5, None])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(ValueError, match=r"device must be .* got"):
        resolve_device(name)


def test_a_model_of_an_absent_device_opens_on_another_with_a_warning(monkeypatch):
    pretend(monkeypatch)
    with pytest.warns(UserWarning, match="device='cuda:3', but .* using another"):
        assert resolve_device("cuda:3", fall_back=True) == CPU


@pytest.mark.parametrize("kind", ["meta", "vulkan", "hpu", "privateuseone"])
def test_devices_that_hold_no_numbers_or_have_no_module_do_not_count(kind):
    assert devices._count(kind) == 0


def test_apples_device_counts_where_it_works(monkeypatch):
    for works in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda w=works: w)
        assert devices._count("mps") == works


def test_bfloat16_is_automatic_only_where_the_chosen_card_has_it(monkeypatch):
    asked = []

    class Chosen:
        def __init__(self, device):
            asked.append(device)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    def supported(including_emulation=True):
        return including_emulation or asked[-1].index == 1

    monkeypatch.setattr(torch.cuda, "device", Chosen)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert autocast_type("auto", torch.device("cuda", 1)) == torch.bfloat16
    assert autocast_type("auto", torch.device("cuda", 0)) is None
    assert autocast_type("auto", CPU) is None
    assert autocast_type("float32", torch.device("cuda", 1)) is None
    assert autocast_type("bfloat16", CPU) == torch.bfloat16
    assert len(asked) == 2


def test_a_stream_goes_on_where_it_was_and_leaves_no_trace():
    expected = torch.rand(9, generator=torch.Generator().manual_seed(3))
    before, drawn = torch.get_rng_state(), []
    stream = RandomStream(3, CPU)
    for size in (2, 4, 3):
        with stream.lent():
            drawn.append(torch.rand(size))
        assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(torch.cat(drawn), expected, atol=0, rtol=0)


def test_a_block_inside_a_block_goes_on_with_the_same_numbers():
    expected = torch.rand(3, generator=torch.Generator().manual_seed(3))
    stream, drawn = RandomStream(3, CPU), []
    with stream.lent():
        drawn.append(torch.rand(1))
        with stream.lent():
            drawn.append(torch.rand(1))
        drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)


def test_the_generators_come_back_when_the_block_raises():
    before, stream = torch.get_rng_state(), RandomStream(3, CPU)

    def draw_and_fail():
        with stream.lent():
            torch.rand(2)
            raise KeyError

    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)
    with stream.lent():
        third = torch.rand(1)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(third, expected[2:])


def test_streams_of_other_threads_wait_and_do_not_mix():
    drawn = {}

    def draw(seed):
        stream, parts = RandomStream(seed, CPU), []
        for _ in range(50):
            with stream.lent():
                parts.append(torch.rand(4))
        drawn[seed] = torch.cat(parts)

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        alone = torch.cat([torch.rand(4, generator=generator) for _ in range(50)])
        assert torch.equal(drawn[seed], alone)


@pytest.mark.parametrize("name", ["cuda:1", "mps", "xpu"])
def test_the_generator_of_the_device_is_exchanged_too(monkeypatch, name):
    device, there = torch.device(name), {}

    class Module:
        """Before torch 2.13, that of MPS takes no device."""

        def get_rng_state(where=device):
            return there[where]

        def set_rng_state(state, where=device):
            there[where] = state

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    there[device] = "before"
    own = [torch.Generator().manual_seed(3).get_state(), "own"]
    states = generator_states(device)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == "before"
    set_generator_states(device, own)
    assert there == {device: "own"}
    set_generator_states(device, states)
    assert there == {device: "before"}
    assert torch.equal(states[0], torch.get_rng_state())


@pytest.mark.cuda
def test_only_the_generator_of_the_chosen_card_is_lent():
    card = torch.device("cuda", 0)
    others = [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    with RandomStream(3, card).lent():
        first = torch.rand(4, device=card)
    after = [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    assert all(map(torch.equal, others, after))
    generator = torch.Generator(card).manual_seed(3)
    assert torch.equal(first, torch.rand(4, device=card, generator=generator))


def test_cudnn_is_off_until_the_last_thread_is_done():
    inside, go_on = threading.Barrier(3, timeout=20), threading.Event()

    def stay():
        with attention_of_any_shape(torch.device("cuda")):
            inside.wait()
            go_on.wait(20)

    assert torch.backends.cuda.cudnn_sdp_enabled()
    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with attention_of_any_shape(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    go_on.set()
    for thread in threads:
        thread.join()
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_what_a_user_says_of_attention_stays():
    with attention_of_any_shape(torch.device("cpu")):
        assert torch.backends.cuda.cudnn_sdp_enabled()
    cudnn = SDPBackend.CUDNN_ATTENTION
    with sdpa_kernel([cudnn]), attention_of_any_shape(torch.device("cuda")):
        assert torch.backends.cuda.cudnn_sdp_enabled()
    with sdpa_kernel([SDPBackend.MATH]):
        with attention_of_any_shape(torch.device("cuda")):
            pass
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()
