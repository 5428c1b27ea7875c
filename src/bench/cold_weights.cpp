#include "bench/cold_weights.h"

#include <algorithm>
#include <cstring>

#include "core/macros.h"

namespace octavo::bench {
namespace {

constexpr std::int64_t kPage = 4096;
constexpr float kScale = 0.002f;

std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

// A row-major weight in one buffer: integers, scales, zero points, each from a cache line on.
struct RowMajor {
  RowMajor(const WeightFormat& format_, std::int64_t N_, std::int64_t K_)
      : format(format_),
        N(N_),
        K(K_),
        storage(storage_dtype(format, format.num_bits <= 4)),
        scale_rows(format.group_size == kPerTensor ? 1 : N),
        groups(format.groups(K)) {}

  std::int64_t integer_bytes() const { return N * row_bytes(storage, K); }
  std::int64_t scale_offset() const { return round_up(integer_bytes(), 64); }
  std::int64_t scales() const { return scale_rows * groups; }
  std::int64_t zero_point_offset() const { return round_up(scale_offset() + scales() * 4, 64); }
  std::int64_t bytes() const { return zero_point_offset() + (format.symmetric ? 0 : scales()); }

  MutableQuantizedWeight in(std::byte* data) const {
    MutableQuantizedWeight w = {
        format, {data, storage, N, K}, {data + scale_offset(), DType::kFloat32, scale_rows, groups}, {}};
    if (!format.symmetric) w.zero_point = {data + zero_point_offset(), DType::kUInt8, scale_rows, groups};
    return w;
  }

  WeightFormat format;
  std::int64_t N, K;
  DType storage;
  std::int64_t scale_rows, groups;
};

// Random bytes, cut to the format's range.
void fill(const MutableQuantizedWeight& w) {
  const bool nibbles = bits_of(w.q.dtype) == 4;
  const int mask = w.format.num_bits < 4 || (!nibbles && w.format.num_bits < 8) ? (1 << w.format.num_bits) - 1 : 0xff;
  const int nibble_offset = w.format.symmetric ? 8 + w.format.qmin() : 0;
  std::uint64_t state = 1;
  const std::int64_t bytes = row_bytes(w.q.dtype, w.q.cols);
  for (std::int64_t n = 0; n < w.q.rows; ++n) {
    auto* row = w.q.row<std::uint8_t>(n);
    for (std::int64_t i = 0; i < bytes; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const int random = static_cast<int>(state >> 56);
      if (mask == 0xff) {
        row[i] = static_cast<std::uint8_t>(random);
      } else if (nibbles) {
        row[i] =
            static_cast<std::uint8_t>(((random & mask) + nibble_offset) | (((random >> 4 & mask) + nibble_offset) << 4));
      } else {
        row[i] = static_cast<std::uint8_t>((random & mask) + w.format.qmin());
      }
    }
    if (nibbles && w.q.cols % 2 != 0) row[bytes - 1] &= 0xf;
  }
  const std::int64_t scales = w.scale.rows * w.scale.cols;
  std::fill_n(w.scale.row<float>(0), scales, kScale);
  if (!w.format.symmetric) std::fill_n(w.zero_point.row<std::uint8_t>(0), scales, std::uint8_t(w.format.qmax() / 2));
}

}  // namespace

ColdWeights::ColdWeights(const WeightFormat& format, std::int64_t N, std::int64_t K, Layout layout, std::int64_t bytes,
                         std::int64_t cache_bytes)
    : format_(format),
      N_(N),
      K_(K),
      layout_(layout),
      bytes_(bytes),
      stride_(round_up(bytes, kPage)),
      count_(4 * cache_bytes / bytes + 2),
      buffer_(count_ * stride_) {}

Result<ColdWeights> ColdWeights::make(const WeightFormat& format, std::int64_t N, std::int64_t K, Layout layout,
                                      std::int64_t cache_bytes, Parallel& parallel) {
  const RowMajor parts(format, N, K);
  if (layout == Layout::kRowMajor) {
    ColdWeights weights(format, N, K, layout, parts.bytes(), cache_bytes);
    fill(parts.in(weights.copy(0)));
    for (std::int64_t i = 1; i < weights.count_; ++i) {
      std::memcpy(weights.copy(i), weights.copy(0), static_cast<std::size_t>(parts.bytes()));
    }
    return weights;
  }
  OCTAVO_ASSIGN_OR_RETURN(const std::int64_t bytes, packed_bytes(layout, format, N, K));
  ColdWeights weights(format, N, K, layout, bytes, cache_bytes);
  const AlignedBuffer<std::byte> source(parts.bytes());
  fill(parts.in(source.data()));
  for (std::int64_t i = 0; i < weights.count_; ++i) {
    const MutablePackedWeight out = {layout, format, N, K, {weights.copy(i), static_cast<std::size_t>(bytes)}};
    OCTAVO_RETURN_IF_ERROR(pack(as_const(parts.in(source.data())), out, parallel));
  }
  return weights;
}

ColdWeights::Copy ColdWeights::next() {
  std::byte* data = copy(next_);
  next_ = (next_ + 1) % count_;
  Copy given = {{}, {}, {data, static_cast<std::size_t>(bytes_)}};
  if (layout_ == Layout::kRowMajor) {
    given.row_major = as_const(RowMajor(format_, N_, K_).in(data));
  } else {
    given.packed = {layout_, format_, N_, K_, given.bytes};
  }
  return given;
}

}  // namespace octavo::bench
