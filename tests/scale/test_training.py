"""One training in several processes: the same model, and no process left behind."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import one_of_several
import pandas as pd
import pytest
from one_of_several import PARTS
from PIL import Image

import robustmm
from robustmm.data import read_rows

pytestmark = pytest.mark.scale

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "one_of_several.py"
VALIDATED = {"early_stopping": True, "n_iter_no_change": 1}
# With rows held out, and without them, where the last step is of a single row.
FITS = dict.fromkeys(("MAIL", "CMPT", "FineTune:full", "DCP"), VALIDATED)
PLAIN = ["MoRA", "FineTune:lora", "LinearProbe", "MemPrompt", "MAP", "MSP", "RAGPT"]
FITS |= {name: {} for name in [*PLAIN, "GaussianPrototype", "RanPAC"]}
TASKS = ["DeLo", "RebQ", "L2P", "DualPrompt"]


def environment(**more):
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def launch(size, out, calls):
    """Run the script under torchrun; return what each process found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(size), str(SCRIPT), str(out), json.dumps(calls)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [pickle.loads(Path(f"{out}.{rank}").read_bytes()) for rank in range(size)]


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def told(rank, size, place):
    """What a launcher tells a process."""
    rank, size = str(rank), str(size)
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    return found | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": place}


def fork(size, out, calls, **more):
    """Start processes by hand; forked, as each would import torch for ten seconds.

    Returns their numbers; what they say goes to ``{out}.{rank}.err``.
    """
    place, pids = port(), []
    for rank in range(size):
        pids.append(os.fork())
        if pids[-1] == 0:
            code = 1
            try:
                os.environ.update(told(rank, size, place), **more)
                errors = os.open(f"{out}.{rank}.err", os.O_WRONLY | os.O_CREAT)
                os.dup2(errors, 2)
                one_of_several.main(str(out), calls)
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
    return pids


def end(pids, out, seconds=300):
    """Return what the processes said and how they ended, all within some seconds."""
    codes, until = {}, time.monotonic() + seconds
    while len(codes) < len(pids) and time.monotonic() < until:
        for pid in set(pids) - set(codes):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    for pid in set(pids) - set(codes):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    said = [Path(f"{out}.{rank}.err").read_text() for rank in range(len(pids))]
    return [(words, codes.get(pid)) for words, pid in zip(said, pids, strict=True)]


def run(size, out, calls):
    """Return what forked processes found."""
    for words, code in end(fork(size, out, calls), out, 900):
        assert code == 0, words[-5000:]
    return [pickle.loads(Path(f"{out}.{rank}").read_bytes()) for rank in range(size)]


def far(one, other):
    """How far two sets of tensors are apart at most."""
    assert one.keys() == other.keys()
    gaps = [
        np.abs(one[name].astype(float) - other[name].astype(float)).max()
        for name in one
        # The softmax takes no notice of the bias of keys, whose gradient is nothing but
        # rounding, of which AdamW makes steps of full length.
        if one[name].size and "key.bias" not in name and "k_proj.bias" not in name
    ]
    return max(gaps)


# Of three, the last step of a single row leaves two without any.
OF_THREE = ["MAIL", "CMPT", "FineTune:lora", "DeLo"]
CASES = [(2, name) for name in [*FITS, *TASKS]] + [(3, name) for name in OF_THREE]


@pytest.fixture(scope="module")
def by_number(tmp_path_factory):
    """What one process learns, and what several do with as many rows in a step."""
    folder = tmp_path_factory.mktemp("fits")
    calls = [("fits", {"options": FITS}), ("tasks", {"names": TASKS})]
    some = {name: FITS[name] for name in OF_THREE[:3]}
    fewer = [("fits", {"options": some}), ("tasks", {"names": OF_THREE[3:]})]
    found = {2: run(2, folder / "two", calls), 3: run(3, folder / "three", fewer)}
    return found | {1: [{name: PARTS[name](size=1, **p) for name, p in calls}]}


@pytest.mark.parametrize(("size", "name"), CASES)
def test_several_processes_learn_what_one_does(size, name, by_number, capsys):
    part = "tasks" if name in TASKS else "fits"
    one = by_number[1][0][part][name]
    several = [found[part][name] for found in by_number[size]]
    apart = far(one["tensors"], several[0]["tensors"])
    off = np.abs(one["proba"] - several[0]["proba"]).max()
    with capsys.disabled():
        sys.stdout.write(f"\n{size} {name}: weights {apart:.1e}, proba {off:.1e} ")
    assert off < 1e-5
    assert apart < 1e-4
    for column, values in one["history"].items():
        np.testing.assert_allclose(several[0]["history"][column], values, atol=1e-5)
    for other in several[1:]:
        for tensor, value in several[0]["tensors"].items():
            np.testing.assert_array_equal(other["tensors"][tensor], value)
        assert other["history"] == several[0]["history"]
    assert one["bytes"] == pytest.approx(several[0]["bytes"], abs=2000)


def test_where_rounding_is_not_scaled_up_weights_are_equal_to_1e_6(tmp_path):
    """AdamW divides a gradient by its own size, and so the rounding of a small one."""
    names = ["MAIL", "MoRA", "CMPT", "FineTune:lora", "FineTune:full"]
    options = {name: {"sgd": True} for name in names}
    several = run(2, tmp_path / "found", [("fits", {"options": options})])
    one = one_of_several.fits(options, size=1)
    for name in names:
        assert far(one[name]["tensors"], several[0]["fits"][name]["tensors"]) < 1e-6


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["gloo", "nccl"])
def test_two_processes_on_one_card_learn_what_one_does(way, tmp_path):
    params = {"sgd": True, "device": "cuda:0", "precision": "float32"}
    options = dict.fromkeys(("CMPT", "FineTune:lora"), params)
    call = ("fits_on_one_card", {"options": options, "apart": way == "nccl"})
    both = [found[call[0]] for found in launch(2, tmp_path / "found", [call])]
    one = one_of_several.fits(options, size=1)
    assert way in both[0]["backends"]
    assert ("nccl" in both[0]["backends"]) == (way == "nccl")
    for name in options:
        first, second = (found["fits"][name]["tensors"] for found in both)
        assert far(one[name]["tensors"], first) < 1e-4
        for tensor, value in first.items():
            np.testing.assert_array_equal(second[tensor], value)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What two processes say of cases that need no other start."""
    names = ["others", "breaks", "limits", "stops", "per_process"]
    out = tmp_path_factory.mktemp("said") / "found"
    return launch(2, out, [(name, {}) for name in names])


def test_other_rows_are_refused_in_all(said):
    for found in said:
        assert "must fit the same rows" in found["others"]
        assert "ranks [1]" in found["others"]
        assert "fit_alone" in found["others"]


def test_an_error_in_one_process_is_told_in_the_others(said):
    first, second = (found["breaks"]["first"] for found in said)
    assert second == "OSError: no room left"
    assert first.startswith("RuntimeError: A training of 2 processes has ended")
    assert "rank 1 left it (OSError: no room left)" in first
    again = [found["breaks"]["again"] for found in said]
    assert far(*again) == 0


def test_the_first_clock_ends_the_training_in_all(said):
    one, other = (found["limits"] for found in said)
    assert one["epochs"] == other["epochs"] < 1000
    assert far(one["tensors"], other["tensors"]) == 0


def test_one_process_that_stops_stops_all(said):
    for found in said:
        assert found["stops"]["history"]["epoch"] == [1, 2]
    assert far(*(found["stops"]["tensors"] for found in said)) == 0


def test_what_is_not_shared_works_in_each_process(said):
    X, y, _ = one_of_several.table()
    alone = one_of_several.make("CMPT", one_of_several.BATCH, random_state=1)
    expected = alone.fit(X[1:], y[1:]).predict_proba(X)
    np.testing.assert_allclose(
        said[1]["per_process"]["mine"]["proba"], expected, atol=1e-6
    )
    assert said[0]["per_process"]["scores"] == said[1]["per_process"]["scores"]
    assert [len(found["per_process"]["part"]) for found in said] == [3, 3]


@pytest.mark.parametrize("step", range(1, 11))
def test_a_killed_process_ends_the_others(step, tmp_path):
    """Wherever it is killed: in each of the first steps, rank 0 and rank 1 in turn."""
    victim, out = step % 2, tmp_path / "out"
    said = end(fork(2, out, [("dies", {"rank": victim, "step": step})]), out)
    assert said[victim][1] == -signal.SIGKILL
    message, code = said[1 - victim]
    assert code == 1
    assert f"nothing is heard of rank {victim}" in message
    assert "With checkpoint_dir, the same fit goes on" in message


def test_a_process_that_hangs_ends_the_others_after_the_timeout(tmp_path):
    call, out = ("dies", {"rank": 1, "step": 2, "how": "SIGSTOP"}), tmp_path / "out"
    pids = fork(2, out, [call], ROBUSTMM_TIMEOUT="30")
    try:
        message, code = end(pids[:1], out)[0]
    finally:
        os.kill(pids[1], signal.SIGKILL)
        os.waitpid(pids[1], 0)
    assert code == 1
    assert "nothing is heard of rank 1" in message


def test_of_three_it_is_said_which_one_is_gone(tmp_path):
    """And no process stays behind when its interpreter ends."""
    calls, place = json.dumps([("dies", {"rank": 1, "step": 3})]), port()
    command = [sys.executable, str(SCRIPT), str(tmp_path / "out"), calls]
    processes = [
        subprocess.Popen(
            command,
            env=environment(**told(rank, 3, place)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, -signal.SIGKILL, 1]
    for rank in (0, 2):
        assert "nothing is heard of rank 1, as if" in said[rank]


def test_torchrun_ends_when_one_is_killed(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    calls = json.dumps([("dies", {"rank": 1, "step": 4})])
    command += ["--nproc-per-node", "2", str(SCRIPT), str(tmp_path / "out"), calls]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    for rank in range(2):
        pid = int((tmp_path / f"out.{rank}.pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("size", [1, 3])
def test_a_fit_goes_on_with_another_number_of_processes(size, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    options = {"checkpoint_dir": str(folder), "early_stopping": True}
    # In the third of four epochs, of five steps each.
    die = {"rank": 1, "step": 13, **options}
    end(fork(2, tmp_path / "out", [("dies", die)]), tmp_path / "out")
    assert len(list(folder.iterdir())) == 1
    whole = one_of_several.dies(rank=9, step=0, size=1, early_stopping=True)
    if size == 1:
        found = [one_of_several.dies(rank=9, step=0, size=1, **options)]
    else:
        calls = [("dies", {"rank": 9, "step": 0, **options})]
        found = [part["dies"] for part in run(size, tmp_path / "again", calls)]
    for part in found:
        assert np.abs(part["proba"] - whole["proba"]).max() < 1e-5
        for column, values in whole["history"].items():
            np.testing.assert_allclose(part["history"][column], values, atol=1e-5)
    assert list(folder.iterdir()) == []


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
LAUNCHERS = {
    "torchrun": [*TORCHRUN, "--nproc-per-node", "2"],
    "accelerate": [*ACCELERATE, "--num_processes", "2"],
}
ABSENT = find_spec("accelerate") is None
LAUNCHED = [
    pytest.param(
        name, marks=pytest.mark.skipif(ABSENT and name == "accelerate", reason="absent")
    )
    for name in LAUNCHERS
]


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_the_program_of_the_docs(launcher, tmp_path):
    X, y, _ = one_of_several.table()
    for i, cell in enumerate(read_rows(X).images):
        if cell is not None:
            Image.fromarray(np.asarray(cell)).save(tmp_path / f"{i}.png")
    names = [str(tmp_path / f"{i}.png") for i in range(len(X))]
    X = X.assign(image=pd.Series(names, X.index).where(X["image"].notna()), label=y)
    X.to_csv(tmp_path / "rows.csv")
    program = HERE.parents[1] / "docs" / "code" / "train_together.py"
    command = [*LAUNCHERS[launcher], str(program), "rows.csv", "model"]
    done = subprocess.run(
        command,
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    # A bar is drawn empty once, when it is made.
    assert len(re.findall("CMPTClassifier.fit:   0%", done.stderr)) == 1
    clf = robustmm.load(tmp_path / "model")
    frame = pd.read_csv(tmp_path / "rows.csv")
    one = robustmm.CMPTClassifier._small(batch_size=32, max_epochs=3, random_state=0)
    # With dropout, of which each process draws its own.
    one.fit(frame, frame["label"])
    assert np.abs(one.predict_proba(frame) - clf.predict_proba(frame)).max() < 0.2
