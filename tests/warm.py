"""Programs that need not import first: each is forked from a process that has everything imported.

A test that starts ``fcfn`` needs a process of its own, but hardly ever the seconds in which it
imports. Here one process imports, and then waits at a socket. What `run` starts has its own
arguments, folder, environment and standard streams, and an exit code; but environment variables
that are read while modules are imported are those of the waiting process, and signals do not reach
it. Tests of these start ``python -m fcfn_abm``.
"""

import contextlib
import json
import os
import socket
import sys
from functools import cache, partial

SIZE = 8


def hand_over(address, words):
    """Let the warm process run a program here, and return its exit code."""
    about = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(about).to_bytes(SIZE)], [0, 1, 2])
        connection.sendall(about)
        code = connection.recv(SIZE)
    return int.from_bytes(code) if code else "The process was killed."


def receive(connection):
    """Take the place of the program that asks: its folder, environment and streams."""
    size, streams, _, _ = socket.recv_fds(connection, SIZE, 3)
    left, about = int.from_bytes(size), b""
    while len(about) < left:
        about += connection.recv(1 << 20)
    words, folder, environment = json.loads(about)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    return words


def carry_out(words):
    """Run ``fcfn ...``, ``python FILE ...`` or ``python -c CODE``."""
    import runpy
    from types import ModuleType

    program, *rest = words
    if program == "fcfn":
        from fcfn_abm.cli import main

        del sys.path[0]
        sys.argv = ["fcfn", *rest]
        main()
    elif rest[0] == "-c":
        sys.path[0] = ""
        sys.argv = rest
        sys.modules["__main__"] = main_module = ModuleType("__main__")
        exec(compile(rest[1], "<string>", "exec"), vars(main_module))
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(rest[0]))
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")


def load():
    """Import what programs import."""
    import gc
    import pkgutil
    from importlib import import_module

    import fcfn_abm

    modules = [module.name for module in pkgutil.walk_packages(fcfn_abm.__path__, "fcfn_abm.")]
    for name in ["sklearn.datasets", *modules]:
        if not name.startswith(("fcfn_abm.viz", "fcfn_abm.__main__")):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                import_module(name)
    gc.collect()
    gc.freeze()  # so that the pages of memory stay shared


def serve(address):
    """Fork a process for each that asks, until the pipe of standard input is closed."""
    import selectors
    import warnings

    load()
    # the allocator of pyarrow has a thread of its own, and is made for forks
    warnings.filterwarnings("ignore", ".* is multi-threaded, use of fork", DeprecationWarning)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(1, b"ready\n")
    waits = selectors.DefaultSelector()
    waits.register(listener, selectors.EVENT_READ)
    waits.register(0, selectors.EVENT_READ)
    while all(key.fileobj is listener for key, _ in waits.select()):
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            continue
        waits.close()
        listener.close()
        code = end_of(partial(carry_out, receive(connection)))
        connection.sendall(code.to_bytes(SIZE))
        os._exit(code)


def end_of(program):
    """Return the exit code of a program, with all done that is done at its end.

    The interpreter is not torn down, which would copy all of the memory that is shared.
    """
    import atexit
    import threading
    import traceback

    code = 0
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def start():
    """Start the warm process, which ends with this one, and return the address of its socket."""
    import atexit
    import subprocess
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix="warm-")
    address = os.path.join(folder.name, "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
    )
    atexit.register(folder.cleanup)
    atexit.register(process.communicate)
    assert process.stdout.readline() == b"ready\n"
    return address


@cache
def address():
    """Return where the warm process of these tests waits; the first call starts it."""
    return start()


def run(*words, **options):
    """Run a program as `subprocess.run` does, and return what that returns, with its texts."""
    import subprocess

    options = {"capture_output": True, "text": True, "check": False, **options}
    command = [sys.executable, "-S", __file__, "hand-over", address(), *words]
    return subprocess.run(command, **options)


def write_fcfn(*, more="()"):
    """Return a script that is ``fcfn``; ``more`` is the code of arguments that it appends."""
    return (
        f"#!{sys.executable} -S\nimport sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from warm import hand_over\n"
        f"sys.exit(hand_over({address()!r}, ['fcfn', *sys.argv[1:], *{more}]))\n"
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(hand_over(sys.argv[2], sys.argv[3:]))
