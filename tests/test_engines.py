"""Engines: OpenVINO gives torch's numbers, or does not read; what was converted is kept; who settles what computes a model."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import safetensors.torch
import sqlalchemy as sa
import torch
from openvino import opset13 as opset
from typer.testing import CliRunner

from listener import parts
from listener.cli import app
from listener.config import load as load_config
from pipeline import engine_choice, engines, model, openvino_engine
from pipeline.engine_choice import NotSettled, likely_engine, settled_engine
from pipeline.engines import GATE_TOLERANCE, EngineRefused, Models, load
from pipeline.model import Classifier, ModelCard, ModelError, identity, load_classifier, read_card, write_demo_weights
from pipeline.model_card import Augmentation
from pipeline.pixels import ModelImage, prepare
from store.acts import Acts
from store.alerts import AlertKind, Cause, Limits, causes
from store.condition import Condition
from store.engines import EngineRecord, Engines, Verdict
from store.study import HANGING_ORDER, View, run_id
from tests.mammograms_made import breast_pixels, mammogram
from tests.stepped_store import POLICY, SteppedStore
from tests.test_pixels import REAL, header, pixels_of

ROOT = Path(model.__file__).parent.parent
LIMITS = Limits(waiting_minutes=60, silent_hours=0, min_free_bytes=0)
SIZE = 64  # of all but the tests of equality: seconds become milliseconds


def breast(seed: int = 0, size: int = SIZE) -> ModelImage:
    return prepare(breast_pixels(View.L_CC, seed=seed), mammogram(), profile="presentation", size=size)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    return read_card(write_demo_weights(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def small(demo: ModelCard) -> ModelCard:
    return replace(demo, input_size=SIZE, self_test=None)


@pytest.fixture(scope="module")
def shared(small: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kept graph of `small`."""
    folder = tmp_path_factory.mktemp("engines")
    by_openvino(small, folder)
    return folder


@pytest.fixture
def kept_in(shared: Path, tmp_path: Path) -> Path:
    """A folder of the test's own with that graph."""
    folder = tmp_path / "kept"
    folder.mkdir()
    for one in shared.iterdir():
        os.link(one, folder / one.name)  # 94 MB; who changes it must write another file
    return folder


@pytest.fixture(scope="module")
def tiny() -> openvino_engine.Graph:
    """A graph that is kept in no time."""
    image = opset.parameter([1, 3, SIZE, SIZE], np.float32)
    made = opset.convolution(image, opset.constant(np.ones((4, 3, 1, 1), np.float32)), [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino_engine.Graph(openvino.Model([opset.result(made)], [image], "tiny"), (0.5, -0.25))


def by_openvino(card: ModelCard, kept_in: Path | None = None, **changes: Any) -> Classifier:
    return load(card, engine="openvino", allow_untrained=True, device="cpu", kept_in=kept_in, **changes)


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return max(abs(first - second) for first, second in zip(one, other, strict=True))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("torch was asked for")


# ---- the same numbers ----


def test_openvino_gives_torchs_probabilities_and_heat_maps(demo: ModelCard, tmp_path: Path) -> None:
    """On real views and a made one, without the bias that keeps the demonstration's classes apart: its heat maps would be flat."""
    assert demo.weights is not None
    state = safetensors.torch.load_file(demo.weights)
    safetensors.torch.save_file({**state, "fc.bias": torch.zeros(4)}, tmp_path / "w.safetensors")
    card = replace(demo, weights=tmp_path / "w.safetensors", weights_sha256="", self_test=None)
    torch_says, openvino_says = load_classifier(card, allow_untrained=True, device="cpu"), by_openvino(card)
    images = [prepare(pixels_of(REAL[0]), header(), profile="reference"), prepare(pixels_of(REAL[5]), header(), profile="presentation")]
    seen = set()
    for image in [*images, breast(3, 512)]:
        expected, found = torch_says.read(image), openvino_says.read(image)
        assert apart(found.probabilities, expected.probabilities) < GATE_TOLERANCE
        assert found.heat_map is not None and expected.heat_map is not None
        assert found.heat_map.shape == (16, 16) and found.heat_map.dtype == np.float32
        assert expected.heat_map.std() > 0.05, "a flat map would prove nothing"
        assert np.allclose(found.heat_map, expected.heat_map, atol=1e-3)
        assert sum(found.probabilities) == pytest.approx(1, abs=1e-9)
        seen.add(found.probabilities)
    assert len(seen) == len(images) + 1


def test_augmentation_and_normalisation_are_torchs(small: ModelCard, kept_in: Path) -> None:
    """Neither is in the graph: one that was kept serves every card over the same weights."""
    card = replace(small, mean=(0.5, 0.4, 0.3), augmentation=Augmentation(horizontal_flip=True, rotations_degrees=(-5.0, 5.0)))
    plain, changed = by_openvino(small, kept_in), by_openvino(card, kept_in)
    expected = load_classifier(card, allow_untrained=True, device="cpu").read(breast())
    found = changed.read(breast())
    assert apart(found.probabilities, expected.probabilities) < GATE_TOLERANCE
    assert apart(found.probabilities, plain.classify(breast())) > GATE_TOLERANCE
    assert found.heat_map is not None and expected.heat_map is not None
    assert np.allclose(found.heat_map, expected.heat_map, atol=1e-3)
    assert len(list(kept_in.iterdir())) == 1


def test_an_image_of_another_size_is_an_error(small: ModelCard, kept_in: Path) -> None:
    with pytest.raises(ModelError, match="wants 64 x 64"):
        by_openvino(small, kept_in).classify(breast(size=128))


def test_weights_that_overflow_do_not_pass(small: ModelCard, tmp_path: Path) -> None:
    """Openvino's ReLU makes nothing of what is no number: torch says it."""
    assert small.weights is not None
    state = safetensors.torch.load_file(small.weights)
    safetensors.torch.save_file({**state, "fc.weight": torch.full((4, 2048), 3e38)}, tmp_path / "w.safetensors")
    with pytest.raises(EngineRefused):
        by_openvino(replace(small, weights=tmp_path / "w.safetensors", weights_sha256=""))


def test_reading_repeats_to_the_byte_by_threads_cores_and_processes(small: ModelCard, kept_in: Path) -> None:
    """Two images at once in one process, one thread or three instead of one for each core, another process without torch."""
    images = [breast(seed) for seed in range(4)]
    classifier = by_openvino(small, kept_in)

    def said(by: Classifier, image: ModelImage) -> str:
        reading = by.read(image)
        assert reading.heat_map is not None
        return f"{reading.probabilities!r} {hashlib.sha256(reading.heat_map.tobytes()).hexdigest()}"

    expected = [said(classifier, image) for image in images]
    assert len(set(expected)) == len(images)

    wrong: list[int] = []
    start = threading.Barrier(4)

    def again(first: int) -> None:
        start.wait()
        wrong.extend(index for step in range(24) if said(classifier, images[index := (first + step) % 4]) != expected[index])

    readers = [threading.Thread(target=again, args=[first]) for first in range(4)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    assert wrong == []

    path = openvino_engine.kept_at(kept_in, small.weights_sha256, SIZE)
    graph = openvino_engine.open_kept(path)
    assert graph is not None
    for streams, threads in ((1, 1), (1, 3), (2, 2)):
        other = engines.OpenVinoClassifier(small, openvino_engine.Network(graph.model, streams=streams, threads=threads))
        assert [said(other, image) for image in images] == expected

    for index, image in enumerate(images):
        np.save(kept_in.parent / f"{index}.npy", image.grey)
    program = f"""
import hashlib, socket, sys
sys.modules["torch"] = None
def connects(event, arguments):
    assert event != "socket.connect", "openvino calls somebody"
sys.addaudithook(connects)
from dataclasses import replace
from pathlib import Path
import numpy as np
from pipeline.engines import load
from pipeline.model_card import read_card
from pipeline.pixels import ModelImage
card = replace(read_card(Path({str(small.path)!r})), input_size={SIZE}, self_test=None)
by = load(card, engine="openvino", allow_untrained=True, kept_in=Path({str(kept_in)!r}))
for index in range(4):
    grey = np.load({str(kept_in.parent)!r} + f"/{{index}}.npy")
    reading = by.read(ModelImage(grey, (0, 0, {SIZE}, {SIZE}), 0.0, ()))
    print(repr(reading.probabilities), hashlib.sha256(reading.heat_map.tobytes()).hexdigest())
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == expected


# ---- the gate ----


def test_a_graph_that_computes_something_else_is_refused(small: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "_EPSILON", 1e-2)
    with pytest.raises(EngineRefused, match=r"does not give torch's numbers for the made image: probabilities differ by .*0\.0001"):
        by_openvino(small, tmp_path)
    assert list(tmp_path.iterdir()) == [], "what was refused is not kept"


def test_the_cards_self_test_is_compared_too(demo: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Openvino that is right on the made image alone does not pass."""
    forward = openvino_engine.Network.forward

    def astray(network: openvino_engine.Network, values: Any) -> Any:
        gains, logits = forward(network, values)
        return gains, logits if np.array_equal(values, engines.probe_input(512)) else logits[:, ::-1]

    monkeypatch.setattr(openvino_engine.Network, "forward", astray)
    with pytest.raises(EngineRefused, match="the self-test's image"):
        by_openvino(demo)


def test_what_was_kept_is_compared_on_every_start(small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which openvino computes otherwise than where torch was asked."""
    monkeypatch.setattr(model, "_import_torch", never)
    by_openvino(small, kept_in)
    forward = openvino_engine.Network.forward
    monkeypatch.setattr(
        openvino_engine.Network, "forward", lambda network, values: (forward(network, values)[0], forward(network, values)[1] * 1.01)
    )
    with pytest.raises(EngineRefused, match="the made image"):
        by_openvino(small, kept_in)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_pass(number: float) -> None:
    with pytest.raises(EngineRefused), np.errstate(invalid="ignore"):
        engines._compare("x", np.array([0.0, number], np.float32), np.array([0.0, 1.0]))
    with pytest.raises(EngineRefused), np.errstate(invalid="ignore"):
        engines._compare("x", np.array([0.0, 1.0], np.float32), np.array([0.0, number]))


def test_openvino_does_not_compute_on_a_gpu(small: ModelCard) -> None:
    with pytest.raises(ModelError, match=r'device = "cuda".*engine = "torch"'):
        load(small, engine="openvino", allow_untrained=True, device="cuda")


def test_untrained_and_exchanged_weights_are_refused_as_by_torch(small: ModelCard, kept_in: Path) -> None:
    with pytest.raises(ModelError, match="allow_untrained = true"):
        load(small, engine="openvino", allow_untrained=False, kept_in=kept_in)
    with pytest.raises(ModelError, match="not the file that the card describes"):
        by_openvino(replace(small, weights_sha256="0" * 64), kept_in)


# ---- kept ----


def test_what_is_kept_is_used_again_and_needs_no_torch(small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = kept_in.iterdir()
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(model, "_import_torch", never)
    by_openvino(small, kept_in)
    assert [path] == list(kept_in.iterdir()) and path.stat().st_mtime_ns == before


def test_a_worker_has_it_converted_by_another_process(demo: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So what torch takes of memory does not stay with it; what the other process finds wrong is told as if it were its own."""
    monkeypatch.setattr(model, "_import_torch", never)
    (tmp_path / "card.toml").write_text(demo.path.read_text().replace("input_size = 512", "input_size = 64").split("[self_test]")[0])
    assert demo.weights is not None
    os.link(demo.weights, tmp_path / demo.weights.name)
    card = read_card(tmp_path / "card.toml")
    by_openvino(card, tmp_path / "engines")
    [path] = (tmp_path / "engines").iterdir()
    assert openvino_engine.open_kept(path) is not None

    (tmp_path / demo.weights.name).unlink()
    (tmp_path / demo.weights.name).write_bytes(b"no tensors")
    (tmp_path / "card.toml").write_text(card.path.read_text().replace(card.weights_sha256, ""))
    with pytest.raises(ModelError, match="not a safetensors file"):
        by_openvino(read_card(tmp_path / "card.toml"), tmp_path / "engines")


def test_a_refusal_by_the_other_process_is_one(small: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "_EPSILON", 1e-2)
    monkeypatch.setattr(engines, "read_card", lambda _: small)
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda said: printed.append(str(said)))
    assert engines.main(str(small.path), str(tmp_path / "kept")) == engines._REFUSED
    ended = subprocess.CompletedProcess([], engines._REFUSED, stdout=printed[0], stderr="")
    monkeypatch.setattr(engines.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(EngineRefused, match="does not give torch's numbers"):
        by_openvino(small, tmp_path)


def test_other_weights_sizes_converters_and_versions_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(weights: str = "0" * 64, size: int = 512) -> Path:
        return openvino_engine.kept_at(tmp_path, weights, size)

    found = [at(), at(weights="1" * 64), at(size=256)]
    monkeypatch.setattr(openvino_engine, "CONVERTER", "other")
    found.append(at())
    monkeypatch.setattr(openvino_engine, "version", lambda: "2099.1")
    found.append(at())
    assert len(set(found)) == 5


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_cut, _flipped, lambda _: b"", lambda _: b"{}".ljust(9000), lambda data: data[4096:]],
    ids=["cut", "bit", "empty", "other", "headless"],
)
def test_what_is_damaged_is_not_opened(
    damage: Callable[[bytes], bytes], tiny: openvino_engine.Graph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kept"
    openvino_engine.keep(tiny, path)
    opened = openvino_engine.open_kept(path)
    assert opened is not None and opened.probe == tiny.probe
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert openvino_engine.open_kept(path) is None
    assert "it is made anew" in caplog.text


def test_a_damaged_graph_is_made_anew(small: ModelCard, kept_in: Path) -> None:
    [path] = kept_in.iterdir()
    found = by_openvino(small, kept_in).classify(breast())
    damaged = _flipped(path.read_bytes())
    path.unlink()
    path.write_bytes(damaged)
    assert by_openvino(small, kept_in).classify(breast()) == found
    assert list(kept_in.iterdir()) == [path] and openvino_engine.open_kept(path) is not None


def test_a_folder_that_cannot_be_written_costs_time_only(small: ModelCard, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        found = by_openvino(small, tmp_path / "file" / "engines")
    assert "could not be kept" in caplog.text
    assert apart(found.classify(breast()), load_classifier(small, allow_untrained=True, device="cpu").classify(breast())) < GATE_TOLERANCE


def test_many_that_start_at_once_do_each_other_no_harm(tiny: openvino_engine.Graph, tmp_path: Path) -> None:
    """Each writes its own and renames it: who reads meanwhile finds none or a whole one."""
    path, written = tmp_path / "kept", threading.Event()
    found: set[tuple[float, ...] | None] = set()

    def read() -> None:
        while not written.is_set() or not found:
            if path.exists():
                opened = openvino_engine.open_kept(path)
                found.add(None if opened is None else opened.probe)

    def write() -> None:
        for _ in range(5):
            openvino_engine.keep(tiny, path)

    reader, writers = threading.Thread(target=read), [threading.Thread(target=write) for _ in range(3)]
    for one in (reader, *writers):
        one.start()
    for one in writers:
        one.join()
    written.set()
    reader.join()
    assert found == {tiny.probe}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tiny: openvino_engine.Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".making-old").mkdir()
    (tmp_path / ".making-old" / "graph.bin").write_bytes(b"half")
    openvino_engine.keep(tiny, tmp_path / "kept")
    assert (tmp_path / ".making-old").is_dir(), "another process may be at it"
    later = time.time() + openvino_engine._ABANDONED_SECONDS + 60
    monkeypatch.setattr(openvino_engine.time, "time", lambda: later)
    openvino_engine.keep(tiny, tmp_path / "kept")
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


# ---- who settles it ----


def test_auto_is_settled_by_the_first_and_recorded(engine: sa.Engine) -> None:
    book = Engines(engine)
    assert book.record() == EngineRecord()
    assert book.settle_auto("openvino", process="a:work:0").auto == "openvino"
    assert book.settle_auto("torch", process="b:work:0").auto == "openvino"
    assert Engines(engine).record().auto == "openvino"
    [act] = Acts(engine).listing(days=1)
    assert (act["person"], act["what"], act["parameters"]) == ("a:work:0", "engine", {"engine": "openvino"})


def test_where_torch_has_read_auto_stays_torch(stepped: SteppedStore, engine: sa.Engine) -> None:
    """An upgrade to a release with OpenVINO changes no score of an installation."""
    stepped.policy = replace(POLICY, model=replace(POLICY.model, engine="torch"))
    stepped.receive(*(mammogram(view) for view in HANGING_ORDER))
    stepped.settle()
    assert stepped.rows(sa.text("SELECT id FROM score")) != []
    assert Engines(engine).settle_auto("openvino", process="a:work:0").auto == "torch"
    assert Acts(engine).listing(days=1)[0]["why"] == "read by torch before engines were recorded"


def test_scores_of_a_simulated_model_say_nothing_of_engines(stepped: SteppedStore, engine: sa.Engine) -> None:
    stepped.receive(*(mammogram(view) for view in HANGING_ORDER))
    stepped.settle()
    assert Engines(engine).settle_auto("openvino", process="a:work:0").auto == "openvino"


def test_the_first_verdict_over_weights_stands(engine: sa.Engine) -> None:
    book, weights, others = Engines(engine), "a" * 64, "b" * 64
    assert book.settle_weights(weights, Verdict(False, "apart by 0.1"), process="a") == Verdict(False, "apart by 0.1")
    assert book.settle_weights(weights, Verdict(True), process="b") == Verdict(False, "apart by 0.1")
    assert book.settle_weights(others, Verdict(True), process="b") == Verdict(True)
    record = book.record()
    assert (record.verdict(weights), record.verdict(others), record.verdict("c" * 64)) == (
        Verdict(False, "apart by 0.1"),
        Verdict(True),
        None,
    )


def test_a_person_switches_and_the_weights_are_compared_anew(engine: sa.Engine) -> None:
    book = Engines(engine)
    before = book.settle_auto("torch", process="a")
    book.settle_weights("a" * 64, Verdict(False, "apart"), process="a")
    assert book.switch("openvino", person="kim", why="faster").auto == before.auto
    assert book.record() == EngineRecord("openvino")
    assert next((act["person"], act["why"]) for act in Acts(engine).listing(days=1)) == ("kim", "faster")


SAYS = [
    # configured, record, what computes
    ("torch", EngineRecord(), "torch"),
    ("torch", EngineRecord("openvino", {"%s": Verdict(True)}), "torch"),
    ("auto", EngineRecord(), None),
    ("auto", EngineRecord("torch"), "torch"),
    ("auto", EngineRecord("torch", {"%s": Verdict(True)}), "torch"),
    ("auto", EngineRecord("openvino"), None),
    ("auto", EngineRecord("openvino", {"other": Verdict(True)}), None),
    ("auto", EngineRecord("openvino", {"%s": Verdict(True)}), "openvino"),
    ("auto", EngineRecord("openvino", {"%s": Verdict(False, "apart")}), "torch"),
    ("openvino", EngineRecord("torch"), None),
    ("openvino", EngineRecord("torch", {"%s": Verdict(True)}), "openvino"),
    ("openvino", EngineRecord("torch", {"%s": Verdict(False, "apart")}), "torch"),
]


@pytest.mark.parametrize(("configured", "record", "engine"), SAYS)
def test_what_computes_follows_from_the_configuration_and_the_record(
    configured: str, record: EngineRecord, engine: str | None, small: ModelCard
) -> None:
    mine = small.weights_sha256[:40]
    record = EngineRecord(record.auto, {mine if name == "%s" else name: one for name, one in record.verdicts.items()})
    assert settled_engine(small, configured, record) == engine
    if engine is not None:
        assert likely_engine(small, configured, record) == engine


def test_auto_is_openvino_where_it_is_installed_and_no_gpu_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert engine_choice.auto_here("cpu") == engine_choice.auto_here("auto") == "openvino"
    assert engine_choice.auto_here("cuda") == "torch"
    (tmp_path / "gpu").write_text("")
    monkeypatch.setattr(engine_choice, "_GPU_DEVICES", (str(tmp_path / "gpu"),))
    monkeypatch.setattr(model, "cuda_is_available", lambda: True)
    assert (engine_choice.auto_here("auto"), engine_choice.auto_here("cpu")) == ("torch", "openvino")
    monkeypatch.setattr(openvino_engine, "find_spec", lambda name: None)
    assert engine_choice.auto_here("cpu") == "torch"


def models(engine: sa.Engine, kept_in: Path, configured: str = "auto", process: str = "here:work:0") -> Models:
    return Models(Engines(engine), configured=configured, device="cpu", allow_untrained=True, kept_in=kept_in, process=process)


def test_the_identity_and_the_run_differ_between_engines(small: ModelCard) -> None:
    slots = [(view, "1.2.3", "f" * 64, True) for view in HANGING_ORDER]
    by = [identity(small, engine=engine) for engine in ("torch", "openvino")]
    assert len({one.key for one in by}) == 2
    assert len({run_id("1.2", slots, one) for one in by}) == 2


def test_the_first_worker_settles_the_engine_for_all(engine: sa.Engine, small: ModelCard, kept_in: Path) -> None:
    first = models(engine, kept_in)
    assert first.engine_of(small) == "openvino"
    record = Engines(engine).record()
    assert (record.auto, record.verdict(small.weights_sha256)) == ("openvino", Verdict(True))
    loaded = first.load(small, "openvino")
    assert isinstance(loaded, engines.OpenVinoClassifier)
    assert settled_engine(small, "auto", record) == "openvino"  # what receivers and web say


def settled_elsewhere(engine: sa.Engine, card: ModelCard) -> None:
    """Another host reads by OpenVINO."""
    book = Engines(engine)
    book.settle_auto("openvino", process="here:work:0")
    book.settle_weights(card.weights_sha256, Verdict(True), process="here:work:0")


def test_a_host_without_openvino_does_not_read_in_its_name(
    engine: sa.Engine, small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled_elsewhere(engine, small)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino_engine, "find_spec", lambda name: None)
    there = models(engine, kept_in, process="there:work:0")
    assert there.engine_of(small) == "openvino"
    with pytest.raises(ModelError, match=r"pip install 'fourview\[openvino\]'.*engine = \"torch\""):
        there.load(small, "openvino")
    # An installation that begins there is one of torch, and stays so when openvino comes.
    Engines(engine).switch("torch", person="kim")
    assert there.engine_of(small) == "torch"


def refusing(*_: Any, **__: Any) -> Any:
    raise EngineRefused("apart by 0.1")


def test_where_openvino_is_refused_torch_reads_and_it_is_said(
    engine: sa.Engine, small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as wrong, caplog.at_level(logging.WARNING):
        wrong.setattr(engines, "load", refusing)
        assert models(engine, kept_in, "openvino").engine_of(small) == "torch"
    assert "openvino is refused, torch reads" in caplog.text and "apart by 0.1" in caplog.text
    # It stays so, also where openvino would be right: one installation, one identity.
    assert models(engine, kept_in, "openvino", "there:work:0").engine_of(small) == "torch"


def test_of_two_that_settle_at_once_the_first_one_speaks_for_both(
    engine: sa.Engine, small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slower(*_: Any, **__: Any) -> Any:
        Engines(engine).settle_weights(small.weights_sha256, Verdict(False, "apart"), process="there:work:0")
        return object()

    here = models(engine, kept_in)
    monkeypatch.setattr(engines, "load", slower)
    assert here.engine_of(small) == "torch"
    assert here._compared == {}, "what another process refused is not read with"


def test_a_host_that_disagrees_with_the_others_does_not_read(
    engine: sa.Engine, small: ModelCard, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled_elsewhere(engine, small)
    monkeypatch.setattr(engines, "load", refusing)
    there = models(engine, kept_in, process="there:work:0")
    assert there.engine_of(small) == "openvino"
    with pytest.raises(ModelError, match=r"this host may not: apart by 0\.1\. Install the version of openvino"):
        there.load(small, "openvino")


RULE = "[study]\nfetch_from = ''\n[[rule]]\nname = 'all'\nwhen = 'true'\naction = 'analyse'\nsend_to = []\n"


@pytest.fixture
def config(demo: ModelCard, tmp_path: Path) -> Any:
    (tmp_path / "config.toml").write_text(f'[model]\ncard = "{demo.path}"\nallow_untrained = true\n{RULE}')
    return load_config(tmp_path / "config.toml", {})


def test_other_processes_say_what_a_worker_settled(config: Any, demo: ModelCard) -> None:
    """The web process and the command line go by the record, and need no openvino."""
    assert parts.policy(config).model.engine == "openvino"  # no database yet: what would be tried here
    assert not (config.path.parent / "data").exists()
    parts.upgrade_database(config)
    asked = parts.site_policy(config)
    with pytest.raises(NotSettled, match="the first worker that starts does it"):
        asked()
    book = parts.open_engines(config)
    book.settle_auto("openvino", process="a:work:0")
    book.settle_weights(demo.weights_sha256, Verdict(False, "apart"), process="a:work:0")
    assert asked().model.engine == parts.policy(config).model.engine == "torch"


def test_the_record_outlives_an_upgrade_of_the_database(config: Any) -> None:
    parts.upgrade_database(config)
    parts.open_engines(config).settle_auto("torch", process="a:work:0")
    parts.upgrade_database(config)
    assert parts.open_engines(config).record().auto == "torch"


def test_people_see_and_change_what_auto_means(config: Any) -> None:
    def fourview(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["--config", str(config.path), "model", "engine", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    parts.upgrade_database(config)
    assert fourview().splitlines() == ["auto: not settled: the first worker that starts does it"]
    book = parts.open_engines(config)
    book.settle_auto("openvino", process="a:work:0")
    book.settle_weights("a" * 64, Verdict(False, "apart by 0.1"), process="a:work:0")
    assert f"weights {'a' * 40}: torch reads, openvino is refused: apart by 0.1" in fourview()
    assert "auto: openvino -> torch; restart every process" in fourview("torch", "--reason", "a new scanner")
    assert fourview().splitlines() == ["auto: torch"]
    assert parts.open_engines(config).record() == EngineRecord("torch")


def test_a_refusal_is_told_until_a_person_has_settled_it(engine: sa.Engine) -> None:
    book = Engines(engine)
    book.settle_weights("a" * 64, Verdict(True), process="a")

    def told() -> list[Cause]:
        return [one for one in causes(Condition(engine).facts(), LIMITS, None) if one.kind is AlertKind.ENGINE]

    assert told() == []
    book.settle_weights("b" * 64, Verdict(False, "probabilities differ by 0.1"), process="a")
    [cause] = told()
    assert "torch reads instead of OpenVINO" in cause.text and "differ by 0.1" in cause.text
    book.switch("torch", person="kim")
    assert told() == []
