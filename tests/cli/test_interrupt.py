"""Ctrl-C, wherever it strikes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from unnoise.cli.interrupt import interruptible
from unnoise.errors import UnnoiseError
from unnoise.training.stopping import TOGETHER, stop_flag


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)  # where the signal is handled


def swallow(error: Exception) -> None:
    """As compiled code that drops the interrupt and complains of something else."""
    try:
        interrupt()
    except KeyboardInterrupt:
        raise error from None


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Python's own: what a shell starts in the background ignores Ctrl-C, and hands that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [ValueError("no shape"), UnnoiseError("a checkpoint is damaged"), OSError("cut")])
def test_what_comes_of_an_interrupt_is_an_interrupt(error: Exception) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        swallow(error)
    with pytest.raises(type(error)):
        swallow(error)  # so it is without
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="of its own"), interruptible():
        raise ValueError("of its own")


def test_a_second_signal_in_a_training_counts_too() -> None:
    def training() -> None:
        with interruptible(), stop_flag() as flag:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(TOGETHER + 0.1)
            assert flag == ["SIGTERM"]
            swallow(ValueError("no shape"))

    with pytest.raises(KeyboardInterrupt):
        training()


def test_a_thread_leaves_the_handler_alone() -> None:
    def inside() -> None:
        with interruptible():
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers: list[object] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
