"""The roofs of products, measured by octavo_roofs.so (bench/roofs.cpp) in turns with them."""

import ctypes
import mmap
import os

from common import ROOT, median_and_spread
from peers.contender import Layer

LIBRARY = ROOT / "build" / "dev" / "bench" / "octavo_roofs.so"
PAGE, HUGE_PAGE = 4096, 2 << 20
SAMPLES_A_VISIT = 5


class Roofs:
    def __init__(self):
        path = os.environ.get("OCTAVO_ROOFS_LIBRARY", str(LIBRARY))
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            raise SystemExit(
                f"{error}; cmake --preset dev && cmake --build --preset dev --target octavo_roofs"
            ) from None
        library.octavo_read_seconds.restype = ctypes.c_double
        library.octavo_read_seconds.argtypes = [ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int]
        library.octavo_multiply_rate.restype = ctypes.c_double
        library.octavo_multiply_rate.argtypes = [ctypes.c_char_p, ctypes.c_int]
        library.octavo_multiply_name.restype = ctypes.c_char_p
        library.octavo_multiply_name.argtypes = [ctypes.c_char_p]
        library.octavo_last_level_bytes.restype = ctypes.c_longlong
        self._library = library
        self.last_level_bytes = library.octavo_last_level_bytes()

    def read_seconds(self, address: int, size: int, threads: int) -> float:
        return self._library.octavo_read_seconds(address, size, threads)

    def multiply_rate(self, operands: str, threads: int) -> float:
        return self._library.octavo_multiply_rate(operands.encode(), threads)

    def multiply_name(self, operands: str) -> str:
        return self._library.octavo_multiply_name(operands.encode()).decode()


class ColdBytes:
    """As many bytes as a weight has, in cold copies whose huge pages are where pack() would ask for them."""

    def __init__(self, size: int, copies: int):
        self.size = size
        stride = -(-size // PAGE) * PAGE
        self._memory = mmap.mmap(-1, copies * stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._addresses = [base + i * stride for i in range(copies)]
        for address in self._addresses:
            begin = -(-address // HUGE_PAGE) * HUGE_PAGE
            end = (address + size) // HUGE_PAGE * HUGE_PAGE
            if begin < end:
                self._memory.madvise(mmap.MADV_HUGEPAGE, begin - base, end - begin)
        for address in self._addresses:
            ctypes.memset(address, 1, size)

    def next(self) -> int:
        self._addresses.append(self._addresses.pop(0))
        return self._addresses[-1]


class LayerRoofs:
    """The roofs of one layer's products: `visit` measures them once more, `roof` says what was found."""

    def __init__(self, roofs: Roofs, layer: Layer):
        self._roofs, self._layer = roofs, layer
        N, K = layer.N, layer.K
        # What our packed weights take: integers and float32 scales, one a channel or group of 128.
        sizes = {"w8": N * K + 4 * N, "w4": N * K // 2 + 4 * N * -(-K // 128)}
        self._bytes = {width: ColdBytes(size, layer.copies(size)) for width, size in sizes.items()}
        self.restart()

    def restart(self) -> None:
        self._reads = {width: [] for width in self._bytes}
        self._rates = {operands: [] for operands in ("int8", "bf16", "fp32")}

    def visit(self) -> None:
        threads = self._layer.threads
        for width, cold in self._bytes.items():
            self._roofs.read_seconds(cold.next(), cold.size, threads)  # wakes the threads
            for _ in range(SAMPLES_A_VISIT):
                self._reads[width].append(self._roofs.read_seconds(cold.next(), cold.size, threads))
        for operands, rates in self._rates.items():
            rates += [self._roofs.multiply_rate(operands, threads) for _ in range(SAMPLES_A_VISIT)]

    def read_seconds(self, family: str) -> float:
        return median_and_spread(self._reads[family[:2]])[0]

    def read_rate(self, family: str) -> float:
        return self._bytes[family[:2]].size / self.read_seconds(family)

    def roof(self, family: str, operands: str, operations: int) -> tuple[str, float]:
        """What limits a product, and the least time that it takes."""
        read = self.read_seconds(family)
        multiply = operations / median_and_spread(self._rates[operands])[0]
        return ("read", read) if read >= multiply else (self._roofs.multiply_name(operands), multiply)
