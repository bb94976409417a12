"""pipeline/model_card.py and pipeline/model.py: cards, checkpoints of friends and strangers, and the numbers that come out."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from pipeline import model as model_module
from pipeline import model_card
from pipeline.engine_choice import settled_engine
from pipeline.model import (
    CLASSES,
    ModelCard,
    ModelError,
    identity,
    load_classifier,
    model_input,
    read_card,
    write_demo_weights,
)
from pipeline.model_card import Augmentation
from pipeline.pixels import PROFILES, ModelImage, prepare
from store.engines import EngineRecord
from store.study import ImageKind, View
from tests.mammograms_made import breast_pixels, mammogram
from tests.orthanc_process import OrthancProcess
from tests.test_pixels import GOLDEN, REAL, SYNTHETIC, header, pixels_of

ROOT = Path(model_module.__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import reference_path  # noqa: E402

CARD = """
name = "Example"
version = "3"
architecture = "resnet50"
classes = ["Mass", "Calcification", "Architectural/Asymmetry", "Normal"]
weights = "w.pt"
trained = true
"""


def grey(seed: int = 0, size: int = 512) -> ModelImage:
    return prepare(breast_pixels(View.L_CC, seed=seed), mammogram(), profile="presentation", size=size)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    return read_card(write_demo_weights(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def state(demo: ModelCard) -> dict[str, torch.Tensor]:
    assert demo.weights is not None
    return safetensors.torch.load_file(demo.weights)


@pytest.fixture
def card_of(tmp_path: Path) -> Callable[..., ModelCard]:
    """A small card (64 x 64) beside a checkpoint that is written with torch.save."""

    def write(checkpoint: Any, **changes: Any) -> ModelCard:
        torch.save(checkpoint, tmp_path / "w.pt")
        (tmp_path / "card.toml").write_text(CARD)
        return replace(read_card(tmp_path / "card.toml"), input_size=64, **changes)

    return write


def refusal(card: ModelCard, *, allow_untrained: bool = True) -> str:
    with pytest.raises(ModelError) as caught:
        load_classifier(card, allow_untrained=allow_untrained, device="cpu")
    return str(caught.value)


# ---- the card ----


def test_the_card_in_the_repository_explains_every_key_and_is_valid() -> None:
    path = ROOT / "weights" / "resnet50.toml"
    card = read_card(path)
    assert card.classes == CLASSES
    assert card.weights == path.parent / "resnet50.pt"
    assert (card.profile, card.implants, card.image_kinds, card.trained) == ("presentation", "warn", (ImageKind.FFDM,), True)
    text = path.read_text()
    assert [key for key in model_card._KEYS if key.split(".")[-1] not in text] == []


def test_a_short_card_has_sensible_defaults(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    card = read_card(tmp_path / "card.toml")
    assert card.input_size == 512
    assert card.mean == (0.485, 0.456, 0.406)
    assert card.std == (0.229, 0.224, 0.225)
    assert card.profile == "presentation"
    assert card.weights == tmp_path / "w.pt"
    assert card.weights_sha256 == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('colour = "red"', "card.toml: colour: unknown key"),
        ("input_size = 3", "card.toml: input_size: must be a whole number of pixels from 32 to 4096"),
        ("input_size = true", "input_size"),
        ('profile = "other"', "card.toml: profile: must be 'presentation' or 'reference', not 'other'"),
        ("std = [1, 0, 1]", "std: must be three numbers above zero"),
        ("mean = [1, 2]", "mean: must be a list of three numbers"),
        ("mean = [nan, 0, 0]", "mean: must be a number"),
        ('image_kinds = ["FFDM", "film"]', "image_kinds: must be 'FFDM' or"),
        ('weights_sha256 = "abc"', "weights_sha256: must be 64 hex digits"),
        ('implants = "maybe"', "implants: must be 'warn' or 'exclude'"),
        ("sleep_seconds = 1", "sleep_seconds: only for"),
        ("limits = 7", "limits: must be a text"),
        ("= nonsense", "not valid TOML"),
        ("augmentation = true", "augmentation: unknown key"),
        ("[augmentation]\nshear = 1", "augmentation.shear: unknown key"),
        ("[augmentation]\nhorizontal_flip = 1", "augmentation.horizontal_flip: must be true or false"),
        ("[augmentation]\nrotations_degrees = [5, 0]", "augmentation.rotations_degrees: must be different angles"),
        ("[augmentation]\nrotations_degrees = [5, 5.0]", "different angles"),
        ("[augmentation]\nrotations_degrees = [1,2,3,4,5,6,7,8,9]", "at most 8 angles"),
        ('[self_test]\nimage = "a.png"', "self_test.probabilities: missing"),
        ("[self_test.probabilities]\nMass = 1", "self_test.image: missing"),
        ('[self_test]\nimage = "a.png"\nprobabilities = {Mass = 1.0}', "self_test.probabilities: for Mass; the classes are Mass, Calc"),
        ('[self_test]\nimage = "a.png"\nprobabilities = {Mass = 0.5}', "must sum to 1, not to 0.5"),
        ('[self_test]\nimage = "a.png"\nprobabilities = [0.5, 0.5]', "must be a table of class names"),
        ("[self_test]\ntolerance = 0", "self_test.tolerance: must be above 0"),
    ],
)
def test_mistakes_in_a_card_are_named_with_file_and_key(change: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD + change)
    with pytest.raises(ModelError) as caught:
        read_card(tmp_path / "card.toml")
    assert str(tmp_path / "card.toml") in str(caught.value)
    assert words in str(caught.value)


def test_every_mistake_in_a_card_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('name = ""\ncolour = "red"\nversion = "1"\nclasses = ["A"]\ntrained = 1\narchitecture = "resnet50"')
    with pytest.raises(model_card.CardMistakes) as caught:
        read_card(tmp_path / "card.toml")
    keys = [complaint.removeprefix(f"{tmp_path / 'card.toml'}: ").split(":")[0] for complaint in caught.value.complaints]
    assert keys == ["colour", "name", "classes", "trained"]
    assert str(caught.value).splitlines() == list(caught.value.complaints)


@pytest.mark.parametrize("key", ["name", "version", "architecture", "classes", "trained", "weights"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text("\n".join(line for line in CARD.splitlines() if not line.startswith(f"{key} ")))
    with pytest.raises(ModelError, match=f"card.toml: {key}: missing"):
        read_card(tmp_path / "card.toml")


@pytest.mark.parametrize(
    ("classes", "words"), [('["A"]', "at least two"), ('["A", "A"]', "twice"), ('["A", ""]', "must not be empty"), ('["A", 1]', "text")]
)
def test_classes_must_be_names(classes: str, words: str, tmp_path: Path) -> None:
    lines = [line if not line.startswith("classes") else f"classes = {classes}" for line in CARD.splitlines()]
    (tmp_path / "card.toml").write_text("\n".join(lines))
    with pytest.raises(ModelError, match=words):
        read_card(tmp_path / "card.toml")


def test_the_profiles_a_card_may_name_are_those_that_exist() -> None:
    assert set(model_card.PROFILES) == set(PROFILES)


def test_a_missing_card_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\[model\] card.*fourview model demo-weights"):
        read_card(tmp_path / "none.toml")


def test_the_identity_changes_with_what_changes_scores(demo: ModelCard) -> None:
    same = identity(demo, engine="torch")
    assert same.weights_sha256 == demo.weights_sha256
    keys = {
        identity(changed, engine="torch").key
        for changed in (
            demo,
            replace(demo, version="2"),
            replace(demo, profile="reference"),
            replace(demo, mean=(0.5, 0.5, 0.5)),
            replace(demo, input_size=256),
            replace(demo, weights_sha256="0" * 64),
            replace(demo, augmentation=Augmentation(horizontal_flip=True)),
            replace(demo, augmentation=Augmentation(rotations_degrees=(5.0,))),
        )
    }
    assert len(keys) == 8
    assert identity(replace(demo, self_test=None, augmentation=Augmentation()), engine="torch").key == same.key
    assert identity(replace(demo, limits="other words"), engine="torch").key == same.key


def test_the_identity_has_the_files_hash_when_the_card_has_none(demo: ModelCard) -> None:
    assert identity(replace(demo, weights_sha256=""), engine="torch").weights_sha256 == demo.weights_sha256


# ---- checkpoints ----


@pytest.mark.parametrize("form", ["bare", "model_state_dict", "DataParallel", "safetensors"])
def test_every_form_of_checkpoint_gives_the_same_numbers(
    form: str, state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard], tmp_path: Path
) -> None:
    forms: dict[str, Any] = {
        "bare": state,
        "model_state_dict": {"model_state_dict": state, "epoch": 7, "optimizer_state_dict": {"lr": 0.1}},
        "DataParallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "safetensors": {},
    }
    card = card_of(forms[form])
    if form == "safetensors":
        card = replace(card, weights=tmp_path / "w.safetensors")
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    image = grey(size=64)
    found = load_classifier(card, allow_untrained=False, device="cpu").classify(image)
    plain = torchvision.models.resnet50(num_classes=4)
    plain.load_state_dict(state)
    with torch.inference_mode():
        expected = torch.softmax(plain.eval()(torch.from_numpy(model_input(image, card)))[0], 0)
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert sum(found) == pytest.approx(1, abs=1e-6)


class Malicious:
    """What a stranger's checkpoint may hold."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_checkpoint_never_runs_code(legacy: bool, wrapped: bool, card_of: Callable[..., ModelCard], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = {"model_state_dict": Malicious(victim)} if wrapped else Malicious(victim)
    card = card_of({})
    assert card.weights is not None
    torch.save(content, card.weights, _use_new_zipfile_serialization=not legacy)
    words = refusal(card)
    assert not victim.exists()
    assert "could run its code" in words
    assert "torch.save(model.state_dict()" in words
    assert "weights_only" not in words, "torch's own advice is to load it unsafely"
    torch.load(card.weights, weights_only=False)
    assert victim.exists(), "the file must be really malicious"


def test_a_bare_pickle_never_runs_code(card_of: Callable[..., ModelCard], tmp_path: Path) -> None:
    card = card_of({})
    assert card.weights is not None
    card.weights.write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    refusal(card)
    assert not (tmp_path / "victim").exists()


def test_a_whole_model_instead_of_its_tensors_is_refused_in_words(card_of: Callable[..., ModelCard]) -> None:
    assert "torch.save(model.state_dict()" in refusal(card_of(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken zip"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_rubbish_is_refused_in_words(content: bytes, suffix: str, card_of: Callable[..., ModelCard], tmp_path: Path) -> None:
    path = tmp_path / f"rubbish{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(replace(card_of({}), weights=path))


@pytest.mark.parametrize("checkpoint", [[1, 2], {"model_state_dict": 3}, {"a": 1}, {}, torch.zeros(3)])
def test_a_checkpoint_of_something_else_is_refused_in_words(checkpoint: Any, card_of: Callable[..., ModelCard]) -> None:
    assert "neither a state_dict nor" in refusal(card_of(checkpoint))


def test_another_number_of_classes_names_both_numbers(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    seven = {**state, "fc.weight": torch.zeros(7, 2048), "fc.bias": torch.zeros(7)}
    assert "the checkpoint has 7 classes, the card card.toml names 4" in refusal(card_of(seven))


def test_another_architecture_is_named(card_of: Callable[..., ModelCard]) -> None:
    words = refusal(card_of(torchvision.models.resnet18(num_classes=4).state_dict()))
    assert "not the weights of a resnet50" in words


def test_a_tensor_of_another_shape_is_named(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    words = refusal(card_of({**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}))
    assert "conv1.weight has shape (64, 1, 7, 7)" in words


def test_everything_wrong_with_a_checkpoint_is_named_at_once(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    odd = {**state, "fc.weight": torch.zeros(7, 2048), "conv1.weight": torch.zeros(64, 1, 7, 7), "head.weight": torch.zeros(1)}
    del odd["bn1.weight"]
    words = refusal(card_of(odd))
    assert "1 tensors are missing, 1 unknown (no bn1.weight, unknown head.weight)" in words
    assert "has 7 classes" in words
    assert "conv1.weight has shape" in words


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_tensors_that_are_no_plain_numbers_are_refused(
    dtype: torch.dtype, state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]
) -> None:
    words = refusal(card_of({**state, "fc.bias": state["fc.bias"].to(dtype)}))
    assert f"fc.bias holds {str(dtype).removeprefix('torch.')}, not floating point numbers" in words


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_tensors_of_other_widths_are_read_as_32_bits(
    dtype: torch.dtype, state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]
) -> None:
    narrow = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    widened = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in narrow.items()}
    found, expected = (
        load_classifier(card_of(checkpoint), allow_untrained=True, device="cpu").classify(grey(size=64)) for checkpoint in (narrow, widened)
    )
    assert found == expected


def test_a_checkpoint_without_step_counters_is_read(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    found, expected = (
        load_classifier(card_of(checkpoint), allow_untrained=True, device="cpu").classify(grey(size=64)) for checkpoint in (old, state)
    )
    assert found == expected


def test_changed_weights_are_refused(demo: ModelCard) -> None:
    words = refusal(replace(demo, weights_sha256="0" * 64))
    assert "0" * 64 in words
    assert demo.weights_sha256 in words


def test_missing_weights_say_what_to_write(demo: ModelCard, tmp_path: Path) -> None:
    missing = replace(demo, weights=tmp_path / "none.pt", weights_sha256="")
    words = refusal(missing)
    assert "none.pt" in words
    assert "fourview model demo-weights" in words
    with pytest.raises(ModelError, match="demo-weights"):
        identity(missing, engine="torch")


def test_an_untrained_model_must_be_allowed(demo: ModelCard) -> None:
    assert "allow_untrained = true" in refusal(demo, allow_untrained=False)


def test_without_torch_the_remedy_is_named(demo: ModelCard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'fourview[inference]'" in refusal(demo)
    with pytest.raises(ModelError, match="inference"):
        write_demo_weights(tmp_path)


def test_a_missing_cuda_device_is_named(demo: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="finds no CUDA device"):
        load_classifier(demo, allow_untrained=True, device="cuda")


def test_cards_are_read_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.model import *; from pipeline.engine_choice import *;"
        "likely_engine(read_card(Path('weights/resnet50.toml')), 'torch', EngineRecord());"
        "print(*({'torch', 'torchvision', 'openvino', 'scipy', 'skimage', 'PIL'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []


# ---- numbers ----


@pytest.mark.parametrize("name", [*REAL, *SYNTHETIC])
def test_the_networks_input_equals_the_replaced_systems(name: str, demo: ModelCard) -> None:
    image = prepare(pixels_of(name), header(), profile="reference")
    given = model_input(image, demo)
    assert (given.shape, given.dtype) == ((1, 3, 512, 512), np.float32)
    assert hashlib.sha256(given.tobytes()).hexdigest() == GOLDEN[name]["input_sha256"]


def test_probabilities_of_the_real_views_equal_plain_torch(demo: ModelCard, state: dict[str, torch.Tensor]) -> None:
    classifier = load_classifier(demo, allow_untrained=True, device="cpu")
    plain = torchvision.models.resnet50(num_classes=4)
    plain.load_state_dict(state)
    plain.eval()
    seen = set()
    for name in REAL:
        image = prepare(pixels_of(name), header(), profile="reference")
        # The oracle's input: test_the_networks_input_equals_the_replaced_systems.
        with torch.inference_mode():
            expected = torch.softmax(plain(torch.from_numpy(model_input(image, demo)))[0], 0)
        found = classifier.classify(image)
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
        seen.add(found)
    assert len(seen) == len(REAL), "the demonstration model must tell images apart"


def test_classifying_twice_gives_the_same_numbers(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    classifier = load_classifier(card_of(state), allow_untrained=True, device="cpu")
    assert classifier.classify(grey(size=64)) == classifier.classify(grey(size=64))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    words = refusal(card_of({**state, "fc.bias": torch.tensor([0.0, value, 0.0, 0.0])}))
    assert "fc.bias holds numbers that are not finite: the training diverged" in words


def test_numbers_that_overflow_are_an_error(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    card = card_of({**state, "fc.weight": torch.full((4, 2048), 3e38)})
    classifier = load_classifier(card, allow_untrained=True, device="cpu")
    for answer in (classifier.classify, classifier.read):
        with pytest.raises(ModelError, match="no finite numbers"):
            answer(grey(size=64))


def test_an_image_of_another_size_is_an_error(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    classifier = load_classifier(card_of(state), allow_untrained=True, device="cpu")
    with pytest.raises(ModelError, match="wants 64 x 64"):
        classifier.classify(grey(size=128))


# ---- augmentation ----


def test_without_augmentation_the_input_is_the_plain_image_alone(demo: ModelCard) -> None:
    assert model_input(grey(), demo).shape == (1, 3, 512, 512)


def test_the_variants_are_the_plain_image_and_each_change_alone(demo: ModelCard) -> None:
    card = replace(demo, mean=(0.0,) * 3, std=(1.0,) * 3, augmentation=Augmentation(horizontal_flip=True, vertical_flip=True))
    image = grey()
    plain, mirrored, upside_down = model_input(image, card)[:, 0]
    assert np.array_equal(plain, image.grey)
    assert np.array_equal(mirrored, image.grey[:, ::-1])
    assert np.array_equal(upside_down, image.grey[::-1])


def test_a_rotation_is_counter_clockwise_about_the_middle_and_lets_black_in(demo: ModelCard) -> None:
    card = replace(demo, mean=(0.0,) * 3, std=(1.0,) * 3, augmentation=Augmentation(rotations_degrees=(-90.0, 45.0, 90.0)))
    image = replace(grey(), grey=np.random.default_rng(1).random((512, 512), np.float32))
    _, clockwise, oblique, counter = model_input(image, card)[:, 0]
    assert np.allclose(clockwise, np.rot90(image.grey, -1), atol=1e-5)
    assert np.allclose(counter, np.rot90(image.grey), atol=1e-5)
    assert np.all(oblique[:70, :70] == 0)
    assert oblique[206:306, 206:306].mean() == pytest.approx(image.grey[206:306, 206:306].mean(), abs=0.02)


def test_probabilities_are_the_mean_over_the_variants(state: dict[str, torch.Tensor], card_of: Callable[..., ModelCard]) -> None:
    plain = card_of(state)
    card = replace(plain, augmentation=Augmentation(horizontal_flip=True, rotations_degrees=(-5.0, 5.0)))
    image = grey(size=64)
    network = torchvision.models.resnet50(num_classes=4)
    network.load_state_dict(state)
    with torch.inference_mode():
        each = torch.softmax(network.eval()(torch.from_numpy(model_input(image, card))), 1)
    assert len(each) == 4
    assert each.std(0).max() > 1e-3, "the variants must differ"
    reading = load_classifier(card, allow_untrained=True, device="cpu").read(image)
    assert reading.probabilities == pytest.approx(each.mean(0).tolist(), abs=1e-5)
    assert sum(reading.probabilities) == pytest.approx(1, abs=1e-6)


def test_a_simulated_model_has_no_augmentation(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(SIMULATED + "[augmentation]\nhorizontal_flip = true")
    with pytest.raises(ModelError, match="augmentation: not for architecture"):
        read_card(tmp_path / "card.toml")


def test_rotations_are_kept_in_order(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD + "[augmentation]\nvertical_flip = true\nrotations_degrees = [5, -5.0]")
    assert read_card(tmp_path / "card.toml").augmentation == Augmentation(vertical_flip=True, rotations_degrees=(-5.0, 5.0))


# ---- simulated ----

SIMULATED = """
name = "Load test"
version = "1"
architecture = "simulated"
classes = ["A", "B", "C"]
trained = false
sleep_seconds = 0.25
"""


def simulated(tmp_path: Path) -> ModelCard:
    (tmp_path / "card.toml").write_text(SIMULATED)
    return read_card(tmp_path / "card.toml")


def test_the_simulated_model_reads_the_images_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(model_module.time, "sleep", slept.append)
    card = simulated(tmp_path)
    assert settled_engine(card, "auto", EngineRecord()) == "simulated"
    with pytest.raises(ModelError, match='write "auto"'):
        settled_engine(card, "torch", EngineRecord())
    assert identity(card, engine="simulated").engine == "simulated"
    classifier = load_classifier(card, allow_untrained=True)
    first, again, other = (classifier.classify(grey(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 3
    assert sum(first) == pytest.approx(1)
    assert slept == [0.25] * 3
    assert classifier.read(grey()).heat_map is None


def test_the_simulated_model_must_be_allowed(tmp_path: Path) -> None:
    assert "allow_untrained = true" in refusal(simulated(tmp_path), allow_untrained=False)


@pytest.mark.parametrize("change", ["trained = true", 'weights = "w.pt"', f'weights_sha256 = "{"0" * 64}"'])
def test_a_simulated_model_is_never_trained_and_has_no_weights(change: str, tmp_path: Path) -> None:
    text = SIMULATED.replace("trained = false", change if change.startswith("trained") else f"trained = false\n{change}")
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(ModelError, match="never trained"):
        read_card(tmp_path / "card.toml")


# ---- demonstration weights ----


def test_demonstration_weights_are_the_same_bytes_and_say_what_they_are(demo: ModelCard, tmp_path: Path) -> None:
    random_state = torch.random.get_rng_state()
    path = write_demo_weights(tmp_path / "new folder")
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert sorted(file.name for file in path.parent.iterdir()) == ["resnet50-demo.png", "resnet50-demo.safetensors", "resnet50-demo.toml"]
    card = read_card(path)
    assert card.weights_sha256 == demo.weights_sha256
    assert not card.trained
    assert torch.__version__ in card.version
    assert "UNTRAINED" in card.limits
    before = {file: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    assert write_demo_weights(path.parent) == path
    assert {file: file.stat().st_mtime_ns for file in path.parent.iterdir()} == before


def test_damaged_demonstration_weights_are_written_anew(demo: ModelCard) -> None:
    assert demo.weights is not None
    demo.weights.write_bytes(b"damaged")
    write_demo_weights(demo.path.parent)
    assert load_classifier(demo, allow_untrained=True, device="cpu")


def test_the_rival_of_make_bench_says_what_our_model_says_in_profile_reference(demo: ModelCard, orthanc: OrthancProcess) -> None:
    ds = mammogram(View.R_CC, pixels=breast_pixels(View.R_CC, rows=640, columns=512))
    part10 = BytesIO()
    ds.save_as(part10, enforce_file_format=True)
    assert demo.weights is not None
    ids = [orthanc.upload(part10.getvalue()), "no such instance"]
    found, missing = reference_path.analyse(reference_path.load_model(demo.weights), orthanc.url, ("user", "password"), ids)
    ours = load_classifier(demo, allow_untrained=True, device="cpu").classify(prepare(ds.pixel_array, ds, profile="reference"))
    assert (found["success"], found["instance_id"], list(found["all_probabilities"])) == (True, ids[0], list(demo.classes))
    assert list(found["all_probabilities"].values()) == pytest.approx(ours, abs=1e-6)
    assert found["probability"] == max(found["all_probabilities"].values()) == found["all_probabilities"][found["predicted_class"]]
    assert (missing["success"], missing["instance_id"]) == (False, "no such instance") and "404" in missing["error"]


def test_a_torchvision_made_for_another_torch_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyPI's torchvision does beside a torch of PyTorch's own index."""
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"torchvision::nms does not exist.*anew from one index"):
        write_demo_weights(tmp_path / "weights")
