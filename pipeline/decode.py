"""Compressed frame -> stored values, in a child process under limits (PS3.5 section 8 and Annex A; PS3.3 C.7.6.3).

Decoders are C, C++ and Rust that read what a stranger sent: they crash, panic, loop, and allocate what the codestream asks for. So they
run in a child of their own (`python -m pipeline.decode`), which imports pydicom, decoders, `pipeline.codestream`, `pipeline.run_lengths`
and `store.header` only, gets no secrets in its environment, may use 2 GiB of memory and as much processor time as its image has time, can
write no file, has no network where the kernel lets it give that up, and dies with its parent. The parent asks through its stdin and reads
from its stdout:

    request   length (4 bytes, little endian), JSON {"path", "timeout_seconds"}
    answer    length (4 bytes, little endian), JSON {"rows", "columns", "dtype", "bits_stored", "pixel_representation"}, then the pixels;
              or JSON {"reason", "permanent"} or {"errno"}
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import pydicom
import pydicom.config
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder

from pipeline import run_lengths
from pipeline.codestream import SIZE
from store.header import read_part10
from store.header_text import is_of_the_disk

#: Largest Rows and Columns. With one 16-bit sample a frame is at most 128 MiB, so no second limit on bytes is needed.
MAX_SIDE = 8192
MEMORY_BYTES = 2 << 30
_START_SECONDS = 60.0
#: The child's own alarm rings so long after its image's time: for a parent that is stopped or stuck itself.
_ALARM_SECONDS = 30.0
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_LENGTH = struct.Struct("<I")
_MAX_MESSAGE_BYTES = 64 * 1024

#: Transfer syntax -> the pydicom plugins that may decode it, preferred first; none: not compressed. gdcm has known faults and comes last.
#: RLE is pydicom's behind `run_lengths`: pylibjpeg's plugin panics on malformed runs and accepts short frames. Deflated is left out because
#: nothing limits what it inflates to, big endian because it is retired. JPEG Extended needs a 12-bit decoder: gdcm's and pillow's refuse
#: 12 bits. Where several can, the fastest is first: of a frame of 3328x2560 pixels pyjpegls made its JPEG-LS in 150 ms and gdcm in 319,
#: pylibjpeg its JPEG 2000 in 729, pillow in 803 and gdcm in 1,043, `run_lengths` its RLE in 49 and pydicom in 237.
_PLUGINS: Mapping[str, tuple[str, ...]] = {
    uid.ExplicitVRLittleEndian: (),
    uid.ImplicitVRLittleEndian: (),
    uid.JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    uid.JPEGLossless: ("gdcm", "pylibjpeg"),
    uid.JPEGLSLossless: ("pyjpegls", "pylibjpeg", "gdcm"),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.RLELossless: ("pydicom",),
    uid.JPEGLSNearLossless: ("pyjpegls", "pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2K: ("pylibjpeg",),
    uid.JPEGExtended12Bit: ("pylibjpeg",),
    uid.JPEGBaseline8Bit: ("pillow", "gdcm"),
}


def _plugin(transfer_syntax_uid: str) -> str | None:
    """The installed plugin for a transfer syntax: "" when none is needed, None when it cannot be decoded here."""
    plugins = _PLUGINS.get(transfer_syntax_uid)
    if plugins is None:
        return None
    if not plugins:
        return ""
    available = get_decoder(transfer_syntax_uid).available_plugins
    return next((plugin for plugin in plugins if plugin in available), None)


#: Transfer syntax UIDs that can be decoded with what is installed, in the order in which to accept them: uncompressed, lossless, lossy.
DECODABLE: tuple[str, ...] = tuple(str(syntax) for syntax in _PLUGINS if _plugin(syntax) is not None)


@dataclass(frozen=True)
class Frame:
    """A decoded image.

    `pixels`: stored values, (rows, columns), uint8 when unsigned with at most 8 bits stored, else uint16 or int16; bits above Bits
    Stored are gone, signed values are extended. Bits Stored and Pixel Representation are those of the header.
    """

    pixels: npt.NDArray[Any]
    bits_stored: int
    pixel_representation: int

    @cached_property
    def pixel_hash(self) -> str:
        """64 hex digits, the same for an image in every lossless transfer syntax. Worked out when first asked for."""
        return pixel_hash(self.pixels, bits_stored=self.bits_stored, pixel_representation=self.pixel_representation)


class DiskFault(OSError):
    """The file could not be read, which says nothing about the image in it."""


class DecodeFailed(Exception):
    """No pixels. `reason` says why in words; `permanent`: the data are at fault, so trying again is of no use."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


# ---- in the child: from a file to stored values ----


def decode_file(path: Path) -> Frame:
    """Decode the single-frame grey image in a Part 10 file, in this process and without limits: `Decoder` is the way to call it.

    Raises DecodeFailed, and whatever a decoder raises.
    """
    transfer_syntax_uid = _transfer_syntax(path)
    plugin = _plugin(transfer_syntax_uid)
    if plugin is None:
        raise DecodeFailed(
            f"transfer syntax {uid.UID(transfer_syntax_uid).name} ({transfer_syntax_uid}) cannot be decoded here", permanent=True
        )
    ds = read_part10(path)
    layout = _layout(ds)
    if "PixelData" not in ds or not ds.PixelData:
        raise DecodeFailed("the image has no Pixel Data (7FE0,0010)", permanent=True)
    if not plugin:
        cells, precision = _native(ds, layout), layout.bits_allocated
    else:
        precision = _check_codestream(ds, transfer_syntax_uid, layout)
        # pydicom's own correction of unused bits knows nothing of High Bit: _stored_values does it.
        options: Any = {"correct_unused_bits": False}
        plain = _run_lengths(ds, layout) if transfer_syntax_uid == uid.RLELossless else None
        cells = (
            get_decoder(transfer_syntax_uid).as_array(ds, index=0, raw=True, decoding_plugin=plugin, **options)[0]
            if plain is None
            else plain
        )
    if cells.shape != (layout.rows, layout.columns):
        raise DecodeFailed(f"the decoded frame has shape {cells.shape}, not ({layout.rows}, {layout.columns})", permanent=True)
    pixels = _stored_values(cells, layout, precision)
    return Frame(pixels, layout.bits_stored, layout.pixel_representation)


def pixel_hash(pixels: npt.NDArray[Any], *, bits_stored: int, pixel_representation: int) -> str:
    """SHA-256 of "rows,columns,bits_stored,pixel_representation" and the little-endian stored values, as 64 hex digits."""
    rows, columns = pixels.shape
    sha = hashlib.sha256(f"{rows},{columns},{bits_stored},{pixel_representation}".encode())
    sha.update(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).data)
    return sha.hexdigest()


@dataclass(frozen=True)
class _Layout:
    """The Image Pixel attributes that say how a frame lies in memory (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int


def _transfer_syntax(path: Path) -> str:
    """Read from the file meta information alone: pydicom would inflate a deflated data set while reading it."""
    try:
        return str(read_file_meta_info(path).TransferSyntaxUID)
    except OSError:
        raise
    except Exception as error:  # malformed bytes raise anything: struct.error, KeyError, EOFError, InvalidDicomError...
        raise DecodeFailed(
            f"the file is not a DICOM Part 10 file with a transfer syntax ({type(error).__name__})", permanent=True
        ) from error


def _integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    value = ds.get(keyword)
    if value is None or value == "":
        if default is None:
            raise DecodeFailed(f"{keyword} is missing", permanent=True)
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DecodeFailed(f"{keyword} is not one number", permanent=True) from error


def _layout(ds: Dataset) -> _Layout:
    samples, frames = _integer(ds, "SamplesPerPixel", 1), _integer(ds, "NumberOfFrames", 1)
    rows, columns = _integer(ds, "Rows"), _integer(ds, "Columns")
    allocated = _integer(ds, "BitsAllocated")
    stored = _integer(ds, "BitsStored", allocated)
    high_bit, sign = _integer(ds, "HighBit", stored - 1), _integer(ds, "PixelRepresentation", 0)
    demands = (
        (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE, f"Rows x Columns is {rows} x {columns}; both must be 1 to {MAX_SIDE}"),
        (frames == 1, f"Number Of Frames is {frames}; only single frames are read"),
        (samples == 1, f"Samples Per Pixel is {samples}; only grey images are read"),
        (allocated in (8, 16), f"Bits Allocated is {allocated}; it must be 8 or 16"),
        (1 <= stored <= allocated, f"Bits Stored is {stored} of {allocated} allocated"),
        (high_bit < allocated, f"High Bit is {high_bit} of {allocated} allocated bits"),
        (sign in (0, 1), f"Pixel Representation is {sign}; it must be 0 or 1"),
    )
    for met, complaint in demands:
        if not met:
            raise DecodeFailed(complaint, permanent=True)
    return _Layout(rows, columns, allocated, stored, high_bit, sign)


def _native(ds: Dataset, layout: _Layout) -> npt.NDArray[Any]:
    """Pixel cells of an uncompressed frame. A short value is an error: pydicom reads past the end of a cut file without a word."""
    dtype = np.dtype("u1" if layout.bits_allocated == 8 else "<u2")
    expected = layout.rows * layout.columns * dtype.itemsize
    if len(ds.PixelData) < expected:
        raise DecodeFailed(
            f"Pixel Data has {len(ds.PixelData)} bytes, {layout.rows} x {layout.columns} pixels need {expected}", permanent=True
        )
    return np.frombuffer(ds.PixelData, dtype, layout.rows * layout.columns).reshape(layout.rows, layout.columns)


def _run_lengths(ds: Dataset, layout: _Layout) -> npt.NDArray[Any] | None:
    """The cells of an RLE frame; None when pydicom's own decoder is to say what is wrong with it."""
    try:
        frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    except (ValueError, EOFError, struct.error):
        return None
    return run_lengths.decoded(frame, layout.rows, layout.columns, layout.bits_allocated // 8)


def _stored_values(cells: npt.NDArray[Any], layout: _Layout, precision: int) -> npt.NDArray[Any]:
    """Cut Bits Stored out of each cell (PS3.5 8.1.1): overlays and rubbish above them go, the sign is extended."""
    container = np.dtype("u1" if cells.dtype.itemsize == 1 else "<u2")
    values = cells.view(container) if cells.dtype.itemsize == container.itemsize else cells.astype(container)
    # High Bit counts within the whole cell: a codestream of exactly Bits Stored has no place below it. A High Bit under
    # Bits Stored - 1 cannot be meant; every reader ignores it.
    shift = layout.high_bit - (layout.bits_stored - 1)
    if shift > 0 and precision > layout.bits_stored:
        values = values >> shift
    mask = (1 << layout.bits_stored) - 1
    if layout.bits_stored < 8 * container.itemsize and int(values.max()) > mask:
        values = values & container.type(mask)
    if layout.pixel_representation == 1:
        sign = 1 << (layout.bits_stored - 1)
        wide = values.astype(np.int32)
        return ((wide ^ sign) - sign).astype("<i2")
    return values.astype("u1" if layout.bits_stored <= 8 else "<u2", copy=False)


def _check_codestream(ds: Dataset, transfer_syntax_uid: str, layout: _Layout) -> int:
    """Compare the codestream's own header with the data set; returns its precision in bits."""
    size_of = SIZE.get(transfer_syntax_uid)
    if size_of is None:  # RLE has no header: pydicom's decoder checks each segment's length against Rows and Columns
        return layout.bits_allocated
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    size = size_of(stream)
    if size is None:
        raise DecodeFailed("the compressed frame has no readable header", permanent=True)
    if (size.rows, size.columns) != (layout.rows, layout.columns):
        raise DecodeFailed(
            f"the compressed frame is {size.rows} x {size.columns}, Rows x Columns is {layout.rows} x {layout.columns}", permanent=True
        )
    if size.components != 1:
        raise DecodeFailed(f"the compressed frame has {size.components} components; only grey images are read", permanent=True)
    # FF D9 cannot occur inside entropy-coded data of any of these, and some decoders fill a cut picture without a word.
    if b"\xff\xd9" not in stream:
        raise DecodeFailed("the compressed frame is cut short: its end marker is missing", permanent=True)
    return size.precision


def _answer(path: Path) -> tuple[dict[str, Any], memoryview]:
    """What the child says about a file."""
    try:
        frame = decode_file(path)
    except DecodeFailed as failure:
        return {"reason": failure.reason, "permanent": failure.permanent}, memoryview(b"")
    except OSError as error:
        if not is_of_the_disk(error):
            return {"reason": "the image is malformed: OSError", "permanent": True}, memoryview(b"")
        return {"errno": error.errno}, memoryview(b"")
    except MemoryError:
        return {"reason": f"decoding needs more than {MEMORY_BYTES >> 30} GiB of memory", "permanent": True}, memoryview(b"")
    except BaseException as error:  # noqa: BLE001 - PanicException of Rust extensions is no Exception; the next file may be good
        # Only the type: the words of an exception may quote the file's bytes, and with them a patient's data.
        return {"reason": f"the image is malformed: {type(error).__name__}", "permanent": True}, memoryview(b"")
    pixels = np.ascontiguousarray(frame.pixels)
    rows, columns = pixels.shape
    said = {"rows": rows, "columns": columns, "dtype": pixels.dtype.str, "bits_stored": frame.bits_stored}
    return {**said, "pixel_representation": frame.pixel_representation}, pixels.data.cast("B")


def _write_message(pipe: IO[bytes], message: Mapping[str, Any], payload: memoryview | bytes = b"") -> None:
    encoded = json.dumps(message).encode()
    pipe.write(_LENGTH.pack(len(encoded)) + encoded)
    pipe.write(payload)
    pipe.flush()


def _confine() -> None:
    """For as long as this process lives it can read files and compute, and little else: whoever takes over a decoder has no more."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Some kernels and containers refuse both, and the decoders have a network then.
        if libc.unshare(_CLONE_NEWNET) != 0:
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # The end of stdin is noticed only between two files; this signal comes at once, also inside a decoder.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),  # a core holds pixels
        (resource.RLIMIT_FSIZE, 0),  # what it opens it can only read; pipes have no size
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),  # no process and no thread beside this one
    ):
        resource.setrlimit(limit, (most, most))


def _allow(seconds: float) -> None:
    """So much processor time from now on. Beyond it the kernel ends the process with SIGXCPU."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def main() -> None:
    """Answer requests until stdin ends."""
    _confine()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not come between the answers
    requests = sys.stdin.buffer
    _write_message(answers, {"ready": True})
    while head := requests.read(_LENGTH.size):
        request = json.loads(requests.read(_LENGTH.unpack(head)[0]))
        _allow(request["timeout_seconds"])
        signal.setitimer(signal.ITIMER_REAL, request["timeout_seconds"] + _ALARM_SECONDS)
        message, payload = _answer(Path(request["path"]))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write_message(answers, message, payload)
        del payload  # the pixels, which would wait here for the next image


# ---- in the parent ----


class _Overrun(Exception):
    """The child did not answer in time."""


def _receive(pipe: IO[bytes], size: int, deadline: float) -> bytearray:
    """Exactly `size` bytes. Raises _Overrun at the deadline, EOFError when the child is gone."""
    received = bytearray(size)
    _fill(memoryview(received), pipe, deadline)
    return received


def _fill(view: memoryview, pipe: IO[bytes], deadline: float) -> None:
    """As many bytes as `view` has, into it; raises as `_receive` does."""
    position = 0
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    while position < len(view):
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _Overrun
        count = os.readv(pipe.fileno(), [view[position:]])
        if count == 0:
            raise EOFError
        position += count


def _receive_message(pipe: IO[bytes], deadline: float) -> dict[str, Any]:
    (size,) = _LENGTH.unpack(_receive(pipe, _LENGTH.size, deadline))
    if size > _MAX_MESSAGE_BYTES:
        raise EOFError
    message: dict[str, Any] = json.loads(_receive(pipe, size, deadline))
    return message


def _environment() -> dict[str, str]:
    """For the child: the way to Python's modules, one thread, and nothing else, so no password is in reach of a decoder."""
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    return {**passed, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Decoder:
    """Owns one child process that decodes; starts another one after a crash or an overrun. Threads may share it: they take turns."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        # The kernel counts the death of the *thread* that started a child as the death of its parent: this one lives as long as we do.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decode-starter")
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False  # the child has said that it listens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def decode(self, path: Path, *, timeout_seconds: float = 60) -> Frame:
        """The stored values of the single-frame grey image in the Part 10 file at `path`.

        Raises DecodeFailed: permanent for malformed or unsupported data, not permanent when the child crashed, overran
        `timeout_seconds`. Raises DiskFault when it could not read the file: the image is not to blame.
        """
        with self._turn:
            try:
                child = self._running()
                return self._ask(child, path, timeout_seconds)
            except (DecodeFailed, DiskFault):
                raise
            except _Overrun:
                self._stop()
                raise DecodeFailed(f"decoding took longer than {timeout_seconds:g} s and was stopped", permanent=False) from None
            except (EOFError, OSError, ValueError) as error:
                raise DecodeFailed(f"the decoding process {self._stop()} while it read the image", permanent=False) from error
            except BaseException:
                self._stop()  # interrupted between question and answer: the next answer on this pipe would belong to another image
                raise

    def start(self) -> None:
        """Start the child now and do not wait for it, so that the first image need not either. Raises OSError."""
        with self._turn:
            self._started()

    def close(self) -> None:
        """End the child. A later `decode` raises RuntimeError."""
        with self._turn:
            self._stop()
            self._starter.shutdown()

    def _ask(self, child: subprocess.Popen[bytes], path: Path, timeout_seconds: float) -> Frame:
        assert child.stdin is not None and child.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        _write_message(child.stdin, {"path": str(path.absolute()), "timeout_seconds": timeout_seconds})
        message = _receive_message(child.stdout, deadline)
        if "errno" in message:
            raise DiskFault(int(message["errno"]), os.strerror(int(message["errno"])))
        if "reason" in message:
            raise DecodeFailed(message["reason"], permanent=message["permanent"])
        rows, columns, dtype = int(message["rows"]), int(message["columns"]), np.dtype(message["dtype"])
        if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE and dtype.kind in "ui" and dtype.itemsize <= 2):
            raise EOFError
        pixels = np.empty((rows, columns), dtype)  # a bytearray would be zeroed first
        _fill(pixels.data.cast("B"), child.stdout, deadline)
        return Frame(pixels, int(message["bits_stored"]), int(message["pixel_representation"]))

    def _running(self) -> subprocess.Popen[bytes]:
        child = self._started()
        if self._ready:
            return child
        assert child.stdout is not None
        try:
            _receive_message(child.stdout, time.monotonic() + _START_SECONDS)
        except (EOFError, _Overrun):
            end = self._stop()
            raise DecodeFailed(
                f"the decoding process {end} before it was ready: `{sys.executable} -m pipeline.decode < /dev/null` shows why",
                permanent=False,
            ) from None
        self._ready = True
        return child

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._stop()
            self._ready = False
            self._child = self._starter.submit(self._start).result()
        return self._child

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        # -P: a folder named like a module in the working directory must not be imported.
        return subprocess.Popen(  # nosec B603 # our own command line
            [sys.executable, "-P", "-m", "pipeline.decode"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            pipesize=1 << 20,
        )

    def _stop(self) -> str:
        """End the child if there is one; how it ended, in words."""
        child, self._child = self._child, None
        if child is None:
            return "was not running"
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        child.stdout.close()
        try:
            status = child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return "did not answer and was stopped"
        if status >= 0:
            return f"ended with exit status {status}"
        return f"was ended by signal {signal.Signals(-status).name}"


if __name__ == "__main__":
    main()
