#include "bench/cold_weights.h"

#include <algorithm>
#include <cstring>

#include "bench/row_major.h"
#include "core/macros.h"

namespace octavo::bench {
namespace {

constexpr std::int64_t kPage = 4096;

void fill(const MutableQuantizedWeight& w) {
  const RandomIntegers random(w.format, w.q.dtype);
  std::uint64_t state = 1;
  const std::int64_t bytes = row_bytes(w.q.dtype, w.q.cols);
  for (std::int64_t n = 0; n < w.q.rows; ++n) {
    auto* row = w.q.row<std::uint8_t>(n);
    for (std::int64_t i = 0; i < bytes; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      row[i] = static_cast<std::uint8_t>((state >> 56 & random.mask) + random.add);
    }
    if (bits_of(w.q.dtype) == 4 && w.q.cols % 2 != 0) row[bytes - 1] &= 0xf;
  }
  const std::int64_t scales = w.scale.rows * w.scale.cols;
  std::fill_n(w.scale.row<float>(0), scales, RowMajor::kScale);
  if (!w.format.symmetric) std::fill_n(w.zero_point.row<std::uint8_t>(0), scales, RowMajor::zero_point(w.format));
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
