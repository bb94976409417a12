"""A little fuzzing of everything that reads what strangers write, and what once broke it. `make fuzz` does it for as long as it is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_targets import TARGETS, close
from hypothesis import HealthCheck, given, settings

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def child() -> Iterator[None]:
    """The decoding child that some targets share ends with them."""
    yield
    close()


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_a_stranger_writes_breaks_it(name: str) -> None:
    target = TARGETS[name]
    executions = 0

    def run(value: Any) -> None:
        nonlocal executions
        executions += 1
        target.holds(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in target.known:
            run(value)
        settings(max_examples=target.examples, deadline=None, suppress_health_check=list(HealthCheck))(given(target.inputs)(run))()
    assert executions >= target.examples


def test_a_fault_is_found() -> None:
    """The frame around the targets does not swallow what it looks for."""

    def run(value: tuple[str, Any]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        settings(max_examples=5, deadline=None)(given(TARGETS["header of bytes"].inputs)(run))()
