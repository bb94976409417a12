"""pipeline/gate.py: who goes beside whom before what may kill its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pipeline.gate import Gate


class Crowd:
    """Those who want through one gate, each in a thread of its own, each inside until it is let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self._let_go: dict[str, threading.Event] = {}
        self._threads = ThreadPoolExecutor(16)

    def want(self, name: str, *, alone: bool = False, image: bool = True) -> Future[bool]:
        self._let_go[name] = threading.Event()

        def go() -> bool:
            with self.gate.enter(alone=alone, image=image) as entered:
                if entered:
                    self.inside.append(name)
                    self._let_go[name].wait(30)
                    self.inside.remove(name)
                return entered

        return self._threads.submit(go)

    def release(self, name: str) -> None:
        self._let_go[name].set()

    def become(self, *names: str) -> None:
        """Returns when just these are inside and stay so for a moment."""
        for _ in range(500):
            if sorted(self.inside) == sorted(names):
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert sorted(self.inside) == sorted(names)

    def end(self) -> None:
        self.gate.close()
        for event in self._let_go.values():
            event.set()
        self._threads.shutdown()


@pytest.fixture
def crowd() -> Iterator[Callable[[int], Crowd]]:
    made: list[Crowd] = []

    def make(images_at_once: int) -> Crowd:
        made.append(Crowd(Gate(images_at_once)))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_images_take_places_and_studies_do_not(crowd: Callable[[int], Crowd]) -> None:
    here = crowd(2)
    for name in ("image 1", "image 2", "image 3"):
        here.want(name)
        time.sleep(0.05)
    here.want("study", image=False)
    here.become("image 1", "image 2", "study")
    here.release("image 1")
    here.become("image 2", "image 3", "study")


@pytest.mark.parametrize("image", [True, False])
def test_nothing_goes_beside_a_suspect_of_either_kind(image: bool, crowd: Callable[[int], Crowd]) -> None:
    here = crowd(2)
    here.want("image")
    here.want("study", image=False)
    here.become("image", "study")
    here.want("suspect", alone=True, image=image)
    time.sleep(0.05)
    here.want("later image")
    here.want("later study", image=False)
    here.become("image", "study")
    here.release("image")
    here.become("study")
    here.release("study")
    here.become("suspect")
    here.release("suspect")
    here.become("later image", "later study")


def test_after_closing_time_nobody_enters_and_who_is_inside_goes_on(crowd: Callable[[int], Crowd]) -> None:
    here = crowd(1)
    inside = here.want("inside")
    here.become("inside")
    waiting = here.want("waiting")
    suspect = here.want("suspect", alone=True)
    here.gate.close()
    assert waiting.result(10) is suspect.result(10) is here.want("late").result(10) is False
    here.become("inside")
    here.release("inside")
    assert inside.result(10) is True
