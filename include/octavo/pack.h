// Weights in the layout that fast kernels read: packed once, when they are loaded, and multiplied many times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "octavo/parallel.h"
#include "octavo/quantize.h"
#include "octavo/status.h"

namespace octavo {

enum class Layout : std::uint8_t {
  kRowMajor,  // q [N, K] with scale and zero_point beside it, as in checkpoints
  kBlock64,   // one buffer: 64 channels side by side, integers in dwords along K, each group's scales behind its integers
};
std::string_view to_string(Layout layout);

// What a packed weight's buffer must be aligned to, in bytes.
inline constexpr std::size_t kPackedAlignment = 64;

// A weight [N, K] in one of the packed layouts; a view. Packed weights hold integers, scales and zero points, so nothing
// else is needed to multiply with them or to unpack them. They belong to the machine: files keep weights row-major.
template <class Byte>
struct BasicPackedWeight {
  Layout layout = Layout::kBlock64;
  WeightFormat format;
  std::int64_t N = 0;
  std::int64_t K = 0;
  std::span<Byte> data;  // packed_bytes() of them, aligned to kPackedAlignment
};
using PackedWeight = BasicPackedWeight<const std::byte>;
using MutablePackedWeight = BasicPackedWeight<std::byte>;

inline PackedWeight as_const(const MutablePackedWeight& w) { return {w.layout, w.format, w.N, w.K, w.data}; }

// Bytes that a weight takes in a packed layout. Fails for kRowMajor, for an empty weight and for what is no
// format.
Result<std::int64_t> packed_bytes(Layout layout, const WeightFormat& format, std::int64_t N, std::int64_t K);

// Writes w into out, whose format and shape must be w's. q may be stored one a byte or, up to 4 bits, two a byte: what is
// packed is the same. Asks the system for huge pages under out where it has them, so pack into memory not yet touched.
// Fails, with out half written, on zero points above the format's greatest integer and on integers of up to 4 bits, stored
// one a byte, that do not fit in 4: the error names the first row with one, and where in it.
Status pack(const QuantizedWeight& w, const MutablePackedWeight& out, Parallel& parallel = serial());

// The exact inverse; out.q may be stored one a byte or two a byte.
Status unpack(const PackedWeight& w, const MutableQuantizedWeight& out, Parallel& parallel = serial());

}  // namespace octavo
