"""Runs one server for a parent process, and ends it when the parent is gone, however it went.

Started by path with the standard library and psutil only, in a session of its own, so that the
terminal's Ctrl-C reaches the parent alone. Its standard input is a pipe that the parent holds:
end of file means that the parent is gone, and then the server is stopped and its temporary
directory removed. Should the guard itself be killed, the kernel kills the server (Linux only).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading

import psutil

PR_SET_PDEATHSIG = 1  # prctl(2)
GRACE_SECONDS = 10.0


def main() -> int:
    """Runs the command until it ends or the parent does; returns its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user")
    parser.add_argument("--stop-signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--remove")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    guard = os.getpid()
    server = subprocess.Popen(  # noqa: S603
        options.command,
        stdin=subprocess.DEVNULL,
        user=options.user,
        group=None if options.user is None else pwd.getpwnam(options.user).pw_gid,
        extra_groups=None if options.user is None else [],
        preexec_fn=lambda: _die_with(guard),  # noqa: PLW1509 - no thread yet
    )
    # The main thread must be the one that forked: the kernel's parent-death signal follows the thread.
    orphaned = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, options.stop_signal, orphaned), daemon=True)
    watch.start()
    code = server.wait()
    if orphaned.is_set():
        watch.join()
        if options.remove is not None:
            shutil.rmtree(options.remove, ignore_errors=True)
    return code


def _die_with(guard: int) -> None:
    if sys.platform != "linux":
        return
    # Set after the change of user, which clears it; the guard may be gone already.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def _watch(server: subprocess.Popen[bytes], stop_signal: int, orphaned: threading.Event) -> None:
    os.read(sys.stdin.fileno(), 1)
    orphaned.set()
    _end(server, stop_signal)


def _end(server: subprocess.Popen[bytes], stop_signal: int) -> None:
    """Stops the server in good order, then whatever is left of it by force."""
    try:
        root = psutil.Process(server.pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _signal(tree, signal.SIGCONT)
    _signal([root], stop_signal)
    _, alive = psutil.wait_procs(tree, timeout=GRACE_SECONDS)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main())
