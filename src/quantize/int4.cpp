#include "quantize/int4.h"

#include "core/error.h"
#include "core/macros.h"
#include "octavo/quantize.h"
#include "quantize/check.h"
#include "quantize/rows.h"

namespace octavo {
namespace {

int offset_of(DType packed) { return packed == DType::kInt4 ? 8 : 0; }

DType packed_type_of(DType q) { return q == DType::kInt8 ? DType::kInt4 : DType::kUInt4; }

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

bool pack_row_int4(const std::uint8_t* q, std::int64_t n, int offset, std::uint8_t* packed) {
  const auto shift = static_cast<std::uint8_t>(offset);
  const std::int64_t pairs = n / 2;
  std::uint8_t used = 0;  // bits of any integer; bytes throughout, so that compilers vectorize the loop
  for (std::int64_t i = 0; i < pairs; ++i) {
    const auto low = static_cast<std::uint8_t>(q[2 * i] + shift);
    const auto high = static_cast<std::uint8_t>(q[2 * i + 1] + shift);
    used |= static_cast<std::uint8_t>(low | high);
    packed[i] = static_cast<std::uint8_t>((low & 0xf) | (high << 4));
  }
  if (n % 2 != 0) {
    const auto last = static_cast<std::uint8_t>(q[n - 1] + shift);
    used |= last;
    packed[pairs] = last & 0xf;
  }
  return used <= 0xf;
}

Status check_row_int4(const MatrixView& q, std::int64_t n) {
  const DType packed = packed_type_of(q.dtype);
  const int offset = offset_of(packed);
  for (std::int64_t k = 0; k < q.cols; ++k) {
    const int value = q.dtype == DType::kInt8 ? int{q.row<std::int8_t>(n)[k]} : int{q.row<std::uint8_t>(n)[k]};
    if (value >= -offset && value < 16 - offset) continue;
    return invalid("q[{}, {}] = {} does not fit in {}", n, k, value, to_string(packed));
  }
  return {};
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
  FirstRow bad;
  parallel.run(0, q.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      if (!pack_row_int4(q.row<std::uint8_t>(n), q.cols, offset, packed.row<std::uint8_t>(n))) bad.report(n);
    }
  });
  return bad.get() == kNoRow ? Status() : check_row_int4(q, bad.get());
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
