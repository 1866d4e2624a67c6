"""Two processes, of which one is signalled, end at the same step."""

import signal
import socket
import subprocess
import sys

import pytest

PROCESS = """
import os, signal, sys, time
import jax
from resnet_jax import parallel
from resnet_jax.training.interruption import Interruption
jax.config.update("jax_platforms", "cpu")
process, port, number = map(int, sys.argv[1:])
parallel.initialize(f"localhost:{port}", 2, process)
with Interruption(sync=parallel.preemption_sync()) as interruption:
    for step in range(1, 6000):
        time.sleep(0.005)
        if (process, step) == (1, 100):
            os.kill(os.getpid(), number)
        if (stop := interruption.should_stop()) is not None:
            print(step, stop.name, flush=True)
            break
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_processes_end_at_the_same_step(number):
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    arguments = [str(port), str(int(number))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(process), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
    (step, name), (signalled_step, signalled_name) = outputs
    assert step == signalled_step
    assert (name, signalled_name) == ("SIGTERM", number.name)
