"""Try attacks one by one, each in a process of its own under watch, and count.

What an attack must not do: run code or open a connection (audit events, and a canary
that every payload creates), read a file outside of what it was given (inotify, so that
libraries in C are seen too), take more memory or time than a limit, end in an error of
another kind than the documented ones, or in NaN.
"""

import collections
import ctypes
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

GIGABYTE = 2**30
# The only outcomes that are good; an attack reports others in capitals.
GOOD = ("refused", "refused later", "same result", "other result", "computed anew")
RUN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("socket.connect", "socket.getaddrinfo", "pty.spawn", "webbrowser.open"),
)
NO_MEMORY = ("allocate", "MemoryError", "out of memory", "Unable to mmap")
IN_OPEN, NONBLOCK = 0x20, 0x800


class Watch:
    """Tell whether anything inside a folder is opened, by whatever code."""

    def __init__(self, folder: Path):
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(NONBLOCK)
        for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
            libc.inotify_add_watch(self.descriptor, os.fsencode(place), IN_OPEN)

    def opened(self) -> bool:
        """Whether there were openings since the last question."""
        try:
            return bool(os.read(self.descriptor, 2**16))
        except BlockingIOError:
            return False


class Guard:
    """Runs attacks and remembers their outcomes.

    Parameters
    ----------
    outside : Path
        A folder that no attack may open anything in.
    canary : Path
        A folder that stays empty as long as no payload is executed.
    seconds, gigabytes : float
        Limits of one attack; the memory is counted from what the process has.
    """

    def __init__(self, outside: Path, canary: Path, seconds=60.0, gigabytes=4.0):
        self.watch, self.canary = Watch(outside), canary
        self.seconds, self.bytes = seconds, int(gigabytes * GIGABYTE)
        self.counts = collections.defaultdict(collections.Counter)
        self.bad: list[str] = []
        self.megabytes = 0.0

    def attempt(self, group: str, name: str, action) -> str:
        """Run ``action() -> outcome`` in a child; return the outcome."""
        self.watch.opened()
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(out)
            os.write(into, self._inside(action).encode(errors="replace"))
            os._exit(0)
        os.close(into)
        with os.fdopen(out, "rb") as stream:
            said = stream.read().decode()
        _, status = os.waitpid(child, 0)
        outcome, _, rest = said.partition("\n")
        megabytes, _, detail = rest.partition("\n")
        self.megabytes = max(self.megabytes, float(megabytes or 0))
        if os.WIFSIGNALED(status):
            killed = os.WTERMSIG(status)
            outcome = "HANG" if killed == signal.SIGALRM else f"KILLED BY {killed}"
        if self.watch.opened():
            outcome = "READ OUTSIDE"
        if list(self.canary.iterdir()):
            outcome = "EXECUTED"
            for file in self.canary.iterdir():
                file.unlink()
        self.counts[group][outcome] += 1
        if outcome not in GOOD:
            self.bad.append(f"{group}: {name}: {outcome} {detail}")
        return outcome

    def _inside(self, action) -> str:
        """In the child: outcome, megabytes, details."""
        events = []
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (size + self.bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(self.seconds))
        sys.addaudithook(lambda event, args: event in RUN and events.append(event))
        detail = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = action()
        except BaseException as error:
            outcome = "OBSCURE ERROR" if _is_obscure(error) else "refused"
            trace = "".join(traceback.format_exception(error))
            if any(word in trace for word in NO_MEMORY):
                outcome = "TOO MUCH MEMORY"
            detail = trace[-3000:] if outcome != "refused" else ""
        if events:
            outcome, detail = "RAN SOMETHING", str(events)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return f"{outcome}\n{max(0, grown) / 1e3}\n{detail}"

    def report(self) -> int:
        """Print a table and what went wrong; return 1 if anything did."""
        outcomes = sorted({o for counts in self.counts.values() for o in counts})
        width = max(map(len, self.counts)) + 2
        print("".join([" " * width, *(f"{o:>16}" for o in ["tries", *outcomes])]))
        total = collections.Counter()
        for group, counts in self.counts.items():
            total.update(counts)
            _print_row(group, width, counts, outcomes)
        _print_row("together", width, total, outcomes)
        print(f"largest growth of one process: {self.megabytes:.0f} MB")
        for line in self.bad:
            print(f"BAD {line}")
        print(f"{sum(total.values())} attacks, {len(self.bad)} of them did harm")
        return int(bool(self.bad))


def _is_obscure(error: BaseException) -> bool:
    return not isinstance(error, ValueError | OSError)


def _print_row(name: str, width: int, counts, outcomes: list[str]) -> None:
    numbers = [sum(counts.values()), *(counts[outcome] for outcome in outcomes)]
    print("".join([f"{name:<{width}}", *(f"{number:>16}" for number in numbers)]))
