"""pipeline/decode.py: every transfer syntax that is promised, the limits, and hostile input, through the real child process."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame

from pipeline import decode
from pipeline.decode import DECODABLE, DecodeFailed, Decoder, DiskFault, Frame, pixel_hash
from store.study import View
from tests.mammograms_made import breast_pixels, mammogram

# An 8 x 8 lossless HTJ2K codestream of 500 * column + 40 * row, made with imagecodecs 2026.3.6: nothing installed here encodes it.
HTJ2K = base64.b85decode(
    "|4;u>04YEK0000800008000000000000008000080000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmw"
    "h=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000SpWh5lfVEbUG@bBbN~PVzyK3K01|-E@dJl+0Biw=bO68r6Tkoy0LVbb0|Imava$d}"
    "Q~<yLDqsK=K<3SxH>z?1bpTGsasI#%f$X*b|Je"
)
HTJ2K_PIXELS = (np.arange(8)[None, :] * 500 + np.arange(8)[:, None] * 40).astype(np.uint16)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[Dataset], Path]:
    def write(ds: Dataset) -> Path:
        path = tmp_path / "image"
        ds.save_as(path, enforce_file_format=True)
        return path

    return write


def image(pixels: Any, **overrides: Any) -> Dataset:
    """A mammogram that holds exactly `pixels`, in their own dtype."""
    signed = int(pixels.dtype.kind == "i")
    bits = 8 * pixels.dtype.itemsize
    stored = overrides.pop("BitsStored", bits)
    ds = mammogram(BitsAllocated=bits, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed)
    ds.Rows, ds.Columns = pixels.shape
    data = pixels.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def compress(ds: Dataset, transfer_syntax_uid: str, **options: Any) -> None:
    """Encode in place. The encoder is named: pydicom's first choice for RLE, gdcm, aborts on odd columns."""
    plugins = {uid.RLELossless: "pydicom", uid.JPEGLSLossless: "pyjpegls", uid.JPEGLSNearLossless: "pyjpegls"}
    plugin = plugins.get(uid.UID(transfer_syntax_uid), "pylibjpeg")
    ds.compress(transfer_syntax_uid, encoding_plugin=plugin, generate_instance_uid=False, **options)


def compressed(stream: bytes, transfer_syntax_uid: str, **attributes: Any) -> Dataset:
    ds = mammogram(**attributes)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = uid.UID(transfer_syntax_uid)
    return ds


def failure(decoder: Decoder, path: Path) -> DecodeFailed:
    with pytest.raises(DecodeFailed) as caught:
        decoder.decode(path)
    return caught.value


def test_transfer_syntaxes_are_offered_uncompressed_first_then_lossless_then_lossy() -> None:
    assert DECODABLE == (
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.203",
        "1.2.840.10008.1.2.4.50",
    )


@pytest.mark.parametrize("transfer_syntax_uid", ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.110", "1.2.3"])
def test_a_transfer_syntax_that_is_not_offered_is_not_decoded(
    transfer_syntax_uid: str, decoder: Decoder, kept: Callable[[Dataset], Path], tmp_path: Path
) -> None:
    path = kept(mammogram())
    data = path.read_bytes()
    old, new = (value.encode() + b"\0" * (len(value) % 2) for value in ("1.2.840.10008.1.2.1", transfer_syntax_uid))
    old_element, new_element = (b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value for value in (old, new))
    assert old_element in data
    path.write_bytes(data.replace(old_element, new_element))
    failed = failure(decoder, path)
    assert failed.permanent
    assert transfer_syntax_uid in failed.reason


@pytest.mark.parametrize("implicit", [False, True])
def test_uncompressed_pixels_come_back_as_they_were(implicit: bool, decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = breast_pixels(View.R_MLO)
    ds = mammogram(pixels=pixels)
    ds.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
    frame = decoder.decode(kept(ds))
    assert np.array_equal(frame.pixels, pixels)
    assert frame.pixels.dtype == np.uint16


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i2"])
def test_the_same_image_has_the_same_hash_in_every_lossless_transfer_syntax(
    dtype: str, decoder: Decoder, kept: Callable[[Dataset], Path]
) -> None:
    random = np.random.default_rng(7)
    low, high = (-2048, 2048) if dtype == "<i2" else (0, 256 if dtype == "u1" else 4096)
    pixels = np.sort(random.integers(low, high, (37, 41)), axis=1).astype(dtype)
    stored = {"u1": 8, "<u2": 12, "<i2": 12}[dtype]
    raw = decoder.decode(kept(image(pixels, BitsStored=stored)))
    assert np.array_equal(raw.pixels, pixels)
    for transfer_syntax_uid in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        ds = image(pixels, BitsStored=stored)
        compress(ds, transfer_syntax_uid)
        frame = decoder.decode(kept(ds))
        assert np.array_equal(frame.pixels, pixels), transfer_syntax_uid.name
        assert frame.pixels.dtype == raw.pixels.dtype
        assert frame.pixel_hash == raw.pixel_hash, transfer_syntax_uid.name


@pytest.mark.parametrize(("option", "transfer_syntax_uid"), [("+e1", uid.JPEGLosslessSV1), ("+el", uid.JPEGLossless)])
def test_jpeg_lossless_of_dcmtk_is_exact(
    option: str,
    transfer_syntax_uid: str,
    decoder: Decoder,
    kept: Callable[[Dataset], Path],
    tmp_path: Path,
    needs_program: Callable[[str], str],
) -> None:
    source, target = kept(mammogram()), tmp_path / "jpeg"
    subprocess.run([needs_program("dcmcjpeg"), option, source, target], check=True)
    frame = decoder.decode(target)
    assert frame.pixel_hash == decoder.decode(source).pixel_hash
    assert decode._transfer_syntax(target) == transfer_syntax_uid


@pytest.mark.parametrize("transfer_syntax_uid", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
def test_high_throughput_jpeg_2000_is_exact(transfer_syntax_uid: str, decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    frame = decoder.decode(kept(compressed(HTJ2K, transfer_syntax_uid, Rows=8, Columns=8)))
    assert np.array_equal(frame.pixels, HTJ2K_PIXELS)


def test_lossy_syntaxes_are_near(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = breast_pixels(View.R_MLO)
    for transfer_syntax_uid, options, far in (
        (uid.JPEGLSNearLossless, {"jls_error": 3}, 3),
        (uid.JPEG2000, {"j2k_cr": [4]}, 600),
    ):
        ds = image(pixels, BitsStored=12)
        compress(ds, transfer_syntax_uid, **options)
        frame = decoder.decode(kept(ds))
        difference = np.abs(frame.pixels.astype(int) - pixels)
        assert 0 < difference.max() <= far, transfer_syntax_uid.name


def test_baseline_jpeg_has_eight_bits(
    decoder: Decoder, kept: Callable[[Dataset], Path], tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    pixels = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    target = tmp_path / "jpeg"
    subprocess.run([needs_program("dcmcjpeg"), "+eb", kept(image(pixels)), target], check=True)
    frame = decoder.decode(target)
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels.astype(int) - pixels).max() < 12


def test_bits_above_bits_stored_are_not_pixels(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = breast_pixels(View.R_MLO)
    clean = decoder.decode(kept(image(pixels, BitsStored=12)))
    overlaid = decoder.decode(kept(image(pixels | 0xA000, BitsStored=12)))
    assert np.array_equal(overlaid.pixels, pixels)
    assert overlaid.pixel_hash == clean.pixel_hash


def test_high_bit_says_where_the_pixel_lies_in_its_cell(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = breast_pixels(View.R_MLO)
    for transfer_syntax_uid in (uid.ExplicitVRLittleEndian, uid.RLELossless):
        ds = image((pixels << 4).astype("<u2"), BitsStored=12, HighBit=15)
        if transfer_syntax_uid.is_compressed:
            ds.BitsStored = 16
            compress(ds, transfer_syntax_uid)
            ds.BitsStored = 12
        assert np.array_equal(decoder.decode(kept(ds)).pixels, pixels)


def test_signed_pixels_keep_their_sign(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = np.array([[-2048, -1], [0, 2047]], "<i2")
    # Only 12 bits are written: the sign must be extended from bit 11.
    ds = image((pixels & 0x0FFF).astype("<i2"), BitsStored=12)
    frame = decoder.decode(kept(ds))
    assert frame.pixels.tolist() == pixels.tolist()
    assert frame.pixels.dtype == np.int16


def test_signed_eight_bit_pixels_are_widened(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    pixels = np.array([[-128, -1], [0, 127]], "i1")
    assert decoder.decode(kept(image(pixels))).pixels.tolist() == pixels.tolist()


def test_the_hash_depends_on_shape_bits_and_sign() -> None:
    pixels = np.zeros((2, 3), np.uint16)
    hashes = {
        pixel_hash(pixels, bits_stored=12, pixel_representation=0),
        pixel_hash(pixels.reshape(3, 2), bits_stored=12, pixel_representation=0),
        pixel_hash(pixels, bits_stored=14, pixel_representation=0),
        pixel_hash(pixels.astype(np.int16), bits_stored=12, pixel_representation=1),
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 0}, "Rows x Columns is 0 x 200"),
        ({"Columns": 8193}, "8193"),
        ({"Rows": 65535, "Columns": 65535}, "must be 1 to 8192"),
        ({"Rows": None}, "Rows is missing"),
        ({"NumberOfFrames": 2}, "Number Of Frames is 2"),
        ({"SamplesPerPixel": 3}, "Samples Per Pixel is 3"),
        ({"BitsAllocated": 32}, "Bits Allocated is 32"),
        ({"BitsStored": 17}, "Bits Stored is 17"),
        ({"HighBit": 16}, "High Bit is 16"),
        ({"PixelRepresentation": 2}, "Pixel Representation is 2"),
        ({"PixelData": None}, "no Pixel Data"),
        ({"Rows": 257}, "Pixel Data has 102400 bytes"),
    ],
)
def test_headers_outside_the_limits_are_refused_in_words(
    attributes: dict[str, Any], words: str, decoder: Decoder, kept: Callable[[Dataset], Path]
) -> None:
    failed = failure(decoder, kept(mammogram(**attributes)))
    assert failed.permanent
    assert words in failed.reason


@pytest.mark.parametrize("transfer_syntax_uid", ["", uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_files_are_no_pictures(transfer_syntax_uid: str, share: float, decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    ds = image(breast_pixels(View.R_MLO), BitsStored=12)
    if transfer_syntax_uid:
        compress(ds, transfer_syntax_uid)
    path = kept(ds)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert failure(decoder, path).permanent


@pytest.mark.parametrize("transfer_syntax_uid", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_truncated_frames_in_whole_files_are_no_pictures(
    transfer_syntax_uid: str, decoder: Decoder, kept: Callable[[Dataset], Path]
) -> None:
    ds = image(breast_pixels(View.R_MLO), BitsStored=12)
    compress(ds, transfer_syntax_uid)
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([stream[: len(stream) * 9 // 10]])
    assert failure(decoder, kept(ds)).permanent


@pytest.mark.parametrize("content", [b"", b"this is a text file", b"\0" * 128 + b"DICM", os.urandom(4096)])
def test_what_is_not_dicom_is_refused_in_words(content: bytes, decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    failed = failure(decoder, tmp_path / "file")
    assert failed.permanent
    assert "not a DICOM Part 10 file" in failed.reason


def test_a_missing_file_may_come_back(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(DiskFault, match="No such file"):
        decoder.decode(tmp_path / "nothing")


@pytest.mark.parametrize("transfer_syntax_uid", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_codestream_larger_than_the_header_says_is_not_decoded(
    transfer_syntax_uid: str, decoder: Decoder, kept: Callable[[Dataset], Path]
) -> None:
    ds = image(np.zeros((600, 600), np.uint16), BitsStored=12)
    compress(ds, transfer_syntax_uid)
    ds.Rows, ds.Columns = 16, 16
    failed = failure(decoder, kept(ds))
    assert failed.permanent
    assert failed.reason == "the compressed frame is 600 x 600, Rows x Columns is 16 x 16"


def box(kind: bytes, content: bytes) -> bytes:
    """Of a JP2 file (ISO 15444-1 I.4)."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def jp2(stream: bytes, before: bytes = b"") -> bytes:
    """A JP2 file of a grey image of 16 bits, with whatever stands before its codestream."""
    rows, columns = struct.unpack_from(">II", stream, 12)[0], struct.unpack_from(">II", stream, 8)[0]
    image_header = box(b"ihdr", struct.pack(">IIHBBBB", rows, columns, 1, 15, 7, 0, 0)) + box(b"colr", b"\x01\x00\x00\x00\x00\x00\x11")
    head = box(b"jP  ", b"\x0d\x0a\x87\x0a") + box(b"ftyp", b"jp2 \x00\x00\x00\x00jp2 ") + box(b"jp2h", image_header)
    return head + before + box(b"jp2c", stream)


def codestream(pixels: Any) -> bytes:
    ds = image(pixels)
    compress(ds, uid.JPEG2000Lossless)
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def test_a_codestream_in_a_jp2_file_is_measured_where_decoders_find_it(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    """A small one in another box must not vouch for a large one behind it."""
    small, large = codestream(np.zeros((64, 64), np.uint16)), codestream(np.zeros((3000, 3000), np.uint16))
    wrapped = compressed(jp2(small), uid.JPEG2000Lossless, Rows=64, Columns=64, BitsStored=16, HighBit=15)
    assert decoder.decode(kept(wrapped)).pixels.shape == (64, 64)
    smuggled = compressed(jp2(large, before=box(b"uuid", bytes(16) + small)), uid.JPEG2000Lossless, Rows=64, Columns=64)
    assert failure(decoder, kept(smuggled)).reason == "the compressed frame is 3000 x 3000, Rows x Columns is 64 x 64"


@pytest.mark.parametrize(("transfer_syntax_uid", "place"), [(uid.JPEG2000Lossless, 40), (uid.JPEGLSLossless, 10)])
def test_a_codestream_of_many_components_is_not_decoded(
    transfer_syntax_uid: str, place: int, decoder: Decoder, kept: Callable[[Dataset], Path]
) -> None:
    ds = image(np.zeros((64, 64), np.uint16))
    compress(ds, transfer_syntax_uid)
    stream = bytearray(get_frame(ds.PixelData, 0, number_of_frames=1))
    assert stream[place : place + 2] in (b"\x00\x01", b"\x40\x01"), "the number of components stands here"
    stream[place + 1] = 0xFF
    failed = failure(decoder, kept(compressed(bytes(stream), transfer_syntax_uid, Rows=64, Columns=64)))
    assert failed.permanent
    assert failed.reason == "the compressed frame has 255 components; only grey images are read"


@pytest.mark.parametrize("transfer_syntax_uid", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2KLossless])
def test_rubbish_for_a_codestream_is_refused(transfer_syntax_uid: str, decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    failed = failure(decoder, kept(compressed(b"\xff\xd8 rubbish " * 40, transfer_syntax_uid)))
    assert failed.permanent
    assert "no readable header" in failed.reason


def test_a_surplus_run_in_rle_does_no_harm(decoder: Decoder, kept: Callable[[Dataset], Path]) -> None:
    segment = bytes([0x81, 0]) * 4  # 4 x 128 zeros where 256 belong: a panic in pylibjpeg-rle
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    path = kept(compressed(header + segment + segment, uid.RLELossless, Rows=16, Columns=16))
    try:
        assert not decoder.decode(path).pixels.any()
    except DecodeFailed as failed:
        assert failed.permanent
    assert decoder.decode(kept(mammogram())).pixels.any()


def test_a_panic_in_a_decoder_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class PanicException(BaseException):
        """As Rust extensions raise it."""

    def panic(path: Path) -> Frame:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(decode, "decode_file", panic)
    message, payload = decode._answer(tmp_path)
    assert message == {"reason": "the image is malformed: PanicException", "permanent": True}
    assert len(payload) == 0


def stop(child: subprocess.Popen[bytes]) -> None:
    """Returns when it stands still: until then it may still take what it is asked."""
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_crash_is_not_the_images_fault_yet_and_the_next_image_is_decoded(kept: Callable[[Dataset], Path]) -> None:
    path = kept(mammogram())
    with Decoder() as decoder, ThreadPoolExecutor(1) as other:
        good = decoder.decode(path)
        child = decoder._child
        assert child is not None
        assert child.stdin is not None
        stop(child)
        asked = other.submit(decoder.decode, path)
        while struct.unpack("i", fcntl.ioctl(child.stdin, termios.FIONREAD, b"\0" * 4)) == (0,):
            time.sleep(0.01)  # until the question lies in the pipe
        os.kill(child.pid, signal.SIGSEGV)
        os.kill(child.pid, signal.SIGCONT)
        with pytest.raises(DecodeFailed, match="SIGSEGV") as caught:
            asked.result()
        assert not caught.value.permanent
        assert decoder.decode(path).pixel_hash == good.pixel_hash


def test_a_child_that_died_while_idle_is_replaced_without_a_word(kept: Callable[[Dataset], Path]) -> None:
    path = kept(mammogram())
    with Decoder() as decoder:
        decoder.decode(path)
        assert decoder._child is not None
        decoder._child.kill()
        decoder._child.wait()
        assert decoder.decode(path).pixels.any()


def test_an_overrun_is_stopped_and_the_next_image_is_decoded(kept: Callable[[Dataset], Path]) -> None:
    path = kept(mammogram())
    with Decoder() as decoder:
        decoder.decode(path)
        assert decoder._child is not None
        stop(decoder._child)
        with pytest.raises(DecodeFailed, match=r"took longer than 0\.3 s") as caught:
            decoder.decode(path, timeout_seconds=0.3)
        assert not caught.value.permanent
        assert decoder.decode(path).pixels.any()


def test_the_childs_limits_are_the_kernels(kept: Callable[[Dataset], Path]) -> None:
    with Decoder() as decoder:
        decoder.decode(kept(mammogram()), timeout_seconds=20)
        assert decoder._child is not None
        lines = Path(f"/proc/{decoder._child.pid}/limits").read_text().splitlines()
        status = Path(f"/proc/{decoder._child.pid}/status").read_text()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max address space"] == [str(decode.MEMORY_BYTES)] * 2
    assert limits["Max core file size"] == limits["Max file size"] == limits["Max processes"] == ["0", "0"]
    assert 20 < int(limits["Max cpu time"][0]) < 60
    assert "NoNewPrivs:\t1" in status


CONFINED = """
import ctypes, json, os, socket, sys
from pipeline import decode
decode._confine()
def write(): open(sys.argv[1], "wb", buffering=0).write(b"x")
def call(): socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=20)
def number(deed):
    try:
        deed()
    except OSError as error:
        return error.errno
    return 0
print(json.dumps({"write": number(write), "call": number(call)}))
"""


def test_what_takes_over_a_decoder_can_write_no_file_and_call_nobody(tmp_path: Path) -> None:
    may_leave = [subprocess.run(["/usr/bin/unshare", *way, "true"], capture_output=True).returncode == 0 for way in (["-n"], ["-U", "-n"])]
    root = Path(decode.__file__).parent.parent
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        arguments = [str(tmp_path / "written"), str(listening.getsockname()[1])]
        done = subprocess.run([sys.executable, "-c", CONFINED, *arguments], capture_output=True, text=True, check=True, cwd=root)
    found = json.loads(done.stdout)
    assert found["write"] == errno.EFBIG
    assert not (tmp_path / "written").stat().st_size
    # A kernel that lets nobody leave the network leaves it to the decoders too: docs/ says so.
    assert found["call"] == (errno.ENETUNREACH if any(may_leave) else 0)


def test_a_frame_that_costs_more_processor_time_than_it_has_ends_the_child(kept: Callable[[Dataset], Path]) -> None:
    """Here by itself: the parent, which also looks at the clock, is not there to kill it."""
    side = 2048
    segment = b"\x00\x07" * (side * side + 1)  # runs of one byte each, one too many: the slow, strict decoder has the word
    stream = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13) + segment + segment
    path = kept(compressed(stream, uid.RLELossless, Rows=side, Columns=side))
    child = Decoder._start()
    assert child.stdin is not None and child.stdout is not None
    with child.stdin, child.stdout:
        decode._receive_message(child.stdout, time.monotonic() + 60)
        decode._write_message(child.stdin, {"path": str(path), "timeout_seconds": 0})
        assert child.stdout.read() == b"", "it had time for an answer"
    assert child.wait() == -signal.SIGXCPU


def test_a_child_that_was_started_in_advance_decodes(kept: Callable[[Dataset], Path]) -> None:
    path = kept(mammogram())
    with Decoder() as decoder:
        decoder.start()
        assert decoder._child is not None
        early = decoder._child.pid
        decoder.start()
        good = decoder.decode(path)
        assert decoder._child.pid == early
        os.kill(early, signal.SIGKILL)
        decoder._child.wait()
        decoder.start()
        assert decoder._child.pid != early
        assert decoder.decode(path).pixel_hash == good.pixel_hash


def test_the_child_sees_no_secrets(kept: Callable[[Dataset], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURVIEW_PACS_PASSWORD", "hunter2")
    with Decoder() as decoder:
        decoder.decode(kept(mammogram()))
        assert decoder._child is not None
        environment = Path(f"/proc/{decoder._child.pid}/environ").read_bytes()
    assert b"OMP_NUM_THREADS=1" in environment
    assert b"hunter2" not in environment


PARENT = """
import os, signal, sys, threading
from pathlib import Path
from pipeline.decode import Decoder
decoder = Decoder()
starter = threading.Thread(target=decoder.decode, args=(Path(sys.argv[1]),))
starter.start(); starter.join()
print(decoder._child.pid, flush=True)
os.kill(decoder._child.pid, 0 if sys.argv[2] == "idle" else signal.SIGSTOP)
signal.pause()
"""


@pytest.mark.parametrize("state", ["idle", "stopped"])
def test_the_child_dies_with_its_parent_also_when_it_cannot_look(state: str, kept: Callable[[Dataset], Path]) -> None:
    root = Path(decode.__file__).parent.parent
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, kept(mammogram()), state],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert running(child), "the thread that asked first has ended, the child must not end with it"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_child_imports_decoders_only() -> None:
    code = "import sys, pipeline.decode; print(*sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    rooms = ["torch", "skimage", "pynetdicom", "sqlalchemy", "dbos", "highdicom", "fastapi", "listener"]
    root = Path(decode.__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", code, *rooms], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.split() == []


def test_a_closed_decoder_says_so(kept: Callable[[Dataset], Path]) -> None:
    decoder = Decoder()
    decoder.close()
    with pytest.raises(RuntimeError):
        decoder.decode(kept(mammogram()))
