// Copies of one weight, so many that each has left the caches before it is read again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/aligned_buffer.h"
#include "octavo/pack.h"
#include "octavo/quantize.h"

namespace octavo::bench {

class ColdWeights {
 public:
  // Copies of random integers [N, K], in a packed layout or row-major; together they take more than 4 * cache_bytes.
  static Result<ColdWeights> make(const WeightFormat& format, std::int64_t N, std::int64_t K, Layout layout,
                                  std::int64_t cache_bytes, Parallel& parallel);

  struct Copy {
    PackedWeight packed;               // without data where the layout is row-major
    QuantizedWeight row_major;         // without data where it is packed
    std::span<const std::byte> bytes;  // all that a product reads of it
  };
  // The copy that was given out the longest ago.
  Copy next();

  Layout layout() const { return layout_; }
  std::int64_t bytes() const { return bytes_; }  // of one copy

 private:
  ColdWeights(const WeightFormat& format, std::int64_t N, std::int64_t K, Layout layout, std::int64_t bytes,
              std::int64_t cache_bytes);

  std::byte* copy(std::int64_t index) const { return buffer_.data() + index * stride_; }

  WeightFormat format_;
  std::int64_t N_, K_;
  Layout layout_;
  std::int64_t bytes_, stride_, count_;
  AlignedBuffer<std::byte> buffer_;
  std::int64_t next_ = 0;
};

}  // namespace octavo::bench
