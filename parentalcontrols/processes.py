"""Child processes that never outlive us, and files that nobody else reads or locks.

Start children from the main thread only: on Linux a child gets its death signal when the
*thread* that started it ends.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

Pause = Callable[[float], None]
Hurry = Callable[[], bool]
Steps = Sequence[tuple[signal.Signals, float]]

POLL_SECONDS = 0.02

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ServerError(Exception):
    """Something an operator can act on; the message is one sentence for them."""


@dataclass(frozen=True)
class ServerUser:
    """The account that the servers run under when it is not our own."""

    uid: int
    gid: int


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before its program so that it gets `number` when we die (Linux only).

    It has to run after the change of user, which clears the setting; `subprocess` keeps that
    order.
    """
    if _libc is None:
        return None
    libc, parent = _libc, os.getpid()

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the kernel knew of our wish

    return ask_for_signal


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent dies (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def spawn(
    arguments: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    environment: Mapping[str, str],
    folder: Path,
    user: ServerUser | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    output: int | IO[bytes] | None = None,
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a child that dies with us.

    In a session of its own it does not hear the terminal's Ctrl-C: the order in which things
    stop is ours to keep. Raises OSError when the program cannot be started.
    """
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        env=dict(environment),
        cwd=folder,
        stdin=stdin,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=own_session,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 - nothing else can ask for it
    )


def wait_until(condition: Callable[[], bool], seconds: float, pause: Pause = time.sleep) -> bool:
    """Poll `condition` for at most `seconds`; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause(POLL_SECONDS)
    return True


def describe_ending(process: subprocess.Popen[bytes] | None) -> str | None:
    """How a process ended in words ("exit code 1", "signal 9"), None while it runs."""
    code = process.poll() if process else None
    if code is None:
        return None
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def end_process(
    process: subprocess.Popen[bytes], steps: Steps, hurry: Hurry = lambda: False
) -> None:
    """Send each signal and wait its seconds, until the process has ended; `hurry` cuts the first
    wait short."""
    for position, (number, seconds) in enumerate(steps):
        if process.poll() is not None:
            return
        process.send_signal(number)
        first = position == 0

        def done(first: bool = first) -> bool:
            return process.poll() is not None or (first and hurry())

        wait_until(done, seconds)
    process.wait()


def end_leftovers(
    find: Callable[[], list[psutil.Process]], steps: Steps, pause: Pause = time.sleep
) -> None:
    """End processes that an earlier, killed run left behind.

    `find` names them by what they are (never by a remembered process id, which may be
    somebody else's by now). Only those whose parent is not among them are signalled: a server's
    children are its own affair. Raises ServerError when some outlive every step.
    """
    for number, seconds in steps:
        found = find()
        if not found:
            return
        pids = {process.pid for process in found}
        for process in found:
            with contextlib.suppress(psutil.Error):
                if number == signal.SIGKILL or process.ppid() not in pids:
                    process.send_signal(number)
        if wait_until(lambda: not find(), seconds, pause):
            return
    raise ServerError(
        "Processes of an earlier run do not end: "
        f"{', '.join(str(process.pid) for process in find())}; end them and try again."
    )


def processes_in(folder: Path, name: str) -> list[psutil.Process]:
    """The running processes called `name` that work in `folder`, our own excepted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() == name and Path(process.cwd()) == folder:
                found.append(process)
    return found


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone (mode 0600), safe on the disk."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def lock_file(path: Path, *, wait: bool = False) -> IO[str]:
    """Lock a file until it is closed or we die, and write our process id into it.

    Raises BlockingIOError when somebody else has the lock and `wait` is false.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as it is locked
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
