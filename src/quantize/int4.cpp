#include "quantize/int4.h"

#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/macros.h"
#include "octavo/quantize.h"
#include "quantize/check.h"

namespace octavo {
namespace {

int offset_of(DType packed) { return packed == DType::kInt4 ? 8 : 0; }

Status check_pair(const MatrixView& packed, const MatrixView& q) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(packed, "packed"));
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(q, "q"));
  const bool signed_pair = packed.dtype == DType::kInt4 && q.dtype == DType::kInt8;
  const bool unsigned_pair = packed.dtype == DType::kUInt4 && q.dtype == DType::kUInt8;
  if (!signed_pair && !unsigned_pair) {
    return invalid("int8 packs into int4 and uint8 into uint4, not {} into {}", to_string(q.dtype), to_string(packed.dtype));
  }
  if (packed.rows != q.rows || packed.cols != q.cols) {
    return invalid("packed is [{}, {}] but q is [{}, {}]", packed.rows, packed.cols, q.rows, q.cols);
  }
  return {};
}

}  // namespace

void pack_row_int4(const std::uint8_t* q, std::int64_t n, int offset, std::uint8_t* packed) {
  const std::int64_t pairs = n / 2;
  std::int64_t i = 0;
  if constexpr (std::endian::native == std::endian::little) {          // eight at a time, within a word
    const std::uint64_t flip = offset == 8 ? 0x0808080808080808u : 0;  // of four bits, + 8 is the upper one flipped
    for (; i + 4 <= pairs; i += 4) {
      std::uint64_t word;
      std::memcpy(&word, q + 2 * i, sizeof word);
      word = (word & 0x0f0f0f0f0f0f0f0fu) ^ flip;
      word = (word | word >> 4) & 0x00ff00ff00ff00ffu;
      word = (word | word >> 8) & 0x0000ffff0000ffffu;
      const auto bytes = static_cast<std::uint32_t>(word | word >> 16);
      std::memcpy(packed + i, &bytes, sizeof bytes);
    }
  }
  for (; i < pairs; ++i) {
    packed[i] = static_cast<std::uint8_t>(((q[2 * i] + offset) & 0xf) | ((q[2 * i + 1] + offset) << 4));
  }
  if (n % 2 != 0) packed[pairs] = static_cast<std::uint8_t>((q[n - 1] + offset) & 0xf);
}

void unpack_row_int4(const std::uint8_t* packed, std::int64_t first, std::int64_t n, int offset, std::uint8_t* q) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t k = first + i;
    const int nibble = (packed[k / 2] >> (k % 2 == 0 ? 0 : 4)) & 0xf;
    q[i] = static_cast<std::uint8_t>(nibble - offset);
  }
}

Status pack_int4(const MatrixView& q, const MutableMatrixView& packed, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_pair(as_const(packed), q));
  const int offset = offset_of(packed.dtype);
  const int lowest = -offset;
  for (std::int64_t n = 0; n < q.rows; ++n) {
    for (std::int64_t k = 0; k < q.cols; ++k) {
      const int value = q.dtype == DType::kInt8 ? int{q.row<std::int8_t>(n)[k]} : int{q.row<std::uint8_t>(n)[k]};
      if (value < lowest || value > lowest + 15) {
        return invalid("q[{}, {}] = {} does not fit in {}", n, k, value, to_string(packed.dtype));
      }
    }
  }
  parallel.run(0, q.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      pack_row_int4(q.row<std::uint8_t>(n), q.cols, offset, packed.row<std::uint8_t>(n));
    }
  });
  return {};
}

Status unpack_int4(const MatrixView& packed, const MutableMatrixView& q, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_pair(packed, as_const(q)));
  const int offset = offset_of(packed.dtype);
  parallel.run(0, q.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      unpack_row_int4(packed.row<std::uint8_t>(n), 0, q.cols, offset, q.row<std::uint8_t>(n));
    }
  });
  return {};
}

}  // namespace octavo
