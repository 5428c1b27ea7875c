// Rows of int8 activations as integer kernels read them: tiles of a few rows, in each the dwords of all its rows for one
// step (or line of steps), then for the next, so that a kernel reads them in order whatever the matrix's stride. Rows are
// padded with zeros to whole steps, group by group, as packed weights are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/aligned_buffer.h"
#include "core/simd.h"
#include "gemm/layout.h"
#include "octavo/parallel.h"
#include "octavo/tensor.h"

#if defined(__x86_64__)

namespace octavo {

// A few rows of x from some step on.
struct IntegerTile {
  const std::uint32_t* dwords;
  int rows;
};

class IntegerRows {
 public:
  // Of a tile: all rows of a step side by side; or sixteen dwords of a row, then of the next, as AMX loads them.
  enum class Order : std::uint8_t { kBySteps, kByLines };

  // x int8 [M, K] of at least one row; scale [M, groups] float32, or empty where the kernel does not ask for them; tiles of
  // up to tile_rows rows.
  IntegerRows(const MatrixView& x, const MatrixView& scale, const Block64& shape, int tile_rows, Order order,
              Parallel& parallel)
      : order_(order),
        M_(x.rows),
        tiles_((x.rows + tile_rows - 1) / tile_rows),
        rows_(x.rows / tiles_),
        more_(x.rows % tiles_),
        groups_(shape.groups()),
        dwords_(shape.unit() / 4),
        steps_((shape.steps() * dwords_ + kLine - 1) / kLine * kLine),
        data_(M_ * steps_),
        sums_(M_ * groups_),
        scales_(scale.rows * scale.cols) {
    const std::int64_t grain = std::max<std::int64_t>(1, 65536 / (tile_rows * std::max<std::int64_t>(x.cols, 1)));
    parallel.run(0, tiles_, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) pack_tile(x, scale, shape, t);
    });
  }

  // Rows are spread evenly over the tiles.
  std::int64_t tiles() const { return tiles_; }
  std::int64_t first_row(std::int64_t tile) const { return tile * rows_ + std::min(tile, more_); }
  int rows(std::int64_t tile) const { return static_cast<int>(rows_ + (tile < more_ ? 1 : 0)); }

  // A tile from a step on: [step][row] dwords, or from a multiple of 16 steps on [step / 16][row][16]. A step of four-bit
  // weights has two dwords a row, those of the even and of the odd k: [step][2][row], or [step / 8][row][16].
  IntegerTile at(std::int64_t tile, std::int64_t step) const {
    const int count = rows(tile);
    return {data_.data() + first_row(tile) * steps_ + step * dwords_ * count, count};
  }
  // Σ x of a group, for the rows of a tile.
  const std::int32_t* sums(std::int64_t tile, std::int64_t group) const {
    return sums_.data() + first_row(tile) * groups_ + group * rows(tile);
  }
  // Scales of a group, the same way.
  const float* scales(std::int64_t tile, std::int64_t group) const {
    return scales_.data() + first_row(tile) * groups_ + group * rows(tile);
  }

 private:
  void pack_tile(const MatrixView& x, const MatrixView& scale, const Block64& shape, std::int64_t tile) {
    const std::int64_t first = first_row(tile);
    const std::int64_t count = rows(tile);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int8_t* row = x.row<std::int8_t>(first + i);
      for (std::int64_t g = 0; g < groups_; ++g) {
        std::uint32_t* slice = data_.data() + first * steps_ + shape.first_step(g) * dwords_ * count;
        if (order_ == Order::kBySteps) {
          pack_slice(row + shape.first_k(g), shape.length(g), count, slice + i);
        } else {
          pack_lines(row + shape.first_k(g), shape.length(g), count, slice + i * kLine);
        }
        const std::int64_t at = first * groups_ + g * count + i;
        sums_.data()[at] = sum(row + shape.first_k(g), shape.length(g));
        if (!scale.empty()) scales_.data()[at] = scale.row<float>(first + i)[g];
      }
    }
  }

  // n elements into out[0], out[stride], …
  void pack_slice(const std::int8_t* x, std::int64_t n, std::int64_t stride, std::uint32_t* out) const {
    const std::int64_t unit = 4 * dwords_;
    std::int64_t k = 0;
    for (; k + unit <= n; k += unit, out += dwords_ * stride) pack_step(x + k, stride, out);
    if (k == n) return;
    std::int8_t rest[8] = {};
    std::memcpy(rest, x + k, static_cast<std::size_t>(n - k));
    pack_step(rest, stride, out);
  }

  // n elements into lines of sixteen dwords, `rows` lines apart.
  void pack_lines(const std::int8_t* x, std::int64_t n, std::int64_t rows, std::uint32_t* out) const {
    const std::int64_t elements = kLine * 4;
    for (std::int64_t k = 0; k < n; k += elements, out += rows * kLine) pack_slice(x + k, std::min(elements, n - k), 1, out);
  }

  void pack_step(const std::int8_t* x, std::int64_t stride, std::uint32_t* out) const {
    if (dwords_ == 1) {
      std::memcpy(out, x, 4);
      return;
    }
    std::uint64_t word;
    std::memcpy(&word, x, 8);
    out[0] = every_second_byte(word);
    out[stride] = every_second_byte(word >> 8);
  }

  static std::uint32_t every_second_byte(std::uint64_t word) {
    word &= 0x00ff00ff00ff00ffu;
    word = (word | word >> 8) & 0x0000ffff0000ffffu;
    return static_cast<std::uint32_t>(word | word >> 16);
  }

  OCTAVO_AVX2 static std::int32_t sum(const std::int8_t* x, std::int64_t n) {
    const __m256i bias = _mm256_set1_epi8(static_cast<char>(0x80));
    __m256i total = _mm256_setzero_si256();
    std::int64_t k = 0;
    for (; k + 32 <= n; k += 32) {
      const __m256i biased = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k)), bias);
      total = _mm256_add_epi64(total, _mm256_sad_epu8(biased, _mm256_setzero_si256()));
    }
    alignas(32) std::int64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total);
    std::int64_t result = lanes[0] + lanes[1] + lanes[2] + lanes[3] - 128 * k;
    for (; k < n; ++k) result += x[k];
    return static_cast<std::int32_t>(result);
  }

  static constexpr std::int64_t kLine = 16;  // dwords

  Order order_;
  std::int64_t M_, tiles_;
  std::int64_t rows_, more_;  // rows of a tile; how many tiles have one more
  std::int64_t groups_, dwords_, steps_;
  AlignedBuffer<std::uint32_t> data_;
  AlignedBuffer<std::int32_t> sums_;
  AlignedBuffer<float> scales_;
};

}  // namespace octavo

#endif  // __x86_64__
