// What the weight-only kernels on packed weights (Layout::kBlock64) share: how a product is cut into pieces. What they do
// with a piece is theirs, in one file per kind of x and instruction set.
//
//   chunk   up to Kernel::kChunk neighbours along K of one group and 64 channels. Its products with a row of x are summed
//           in fp32 in ascending order, then total += sum · scale. Nothing else decides the order of additions, so a row of
//           y does not depend on the other rows, on tiles or on threads.
//   tile    up to Kernel::kRows rows of x, converted and interleaved once a call: values of all its rows at one k are
//           neighbours. A tile of few rows is multiplied with weights that are taken apart in registers.
//   panel   the chunks of a span of K as the multiply instruction takes them, in cache: for more rows than one tile has,
//           weights are taken apart once for all of them. So x lies as [span][tile][chunk][k][row], one stream a panel.
//
// A Kernel has
//   X              what it multiplies with: a float, or a pair of bf16 in a dword
//   kPerStep       X's in a dword of weights
//   kAlign         a chunk's X's are padded with zeros to a multiple of it
//   kRows          rows in a tile at most
//   kFewRows       up to so many rows are multiplied without a panel, in tiles of kFewTile; 0 for never
//   kChunk         columns in a chunk, a multiple of 32: fewer bound the rounding error of long rows, more scale less often
//   kPanel         X's of a channel in a panel, at least those of a chunk
//   kRowMajor      tiles are [chunk][row][k], not [chunk][k][row]; every tile has kRows rows then, zeros beyond the last
//   State          constructed by each thread that multiplies, for as long as it does
//   convert        X's of one row and chunk: `count` elements from k on, then zeros up to `padded` X's
//   few(rows)      the function for so many rows: total[row][64] += scale · Σ weights · x
//   dequantize     a chunk's X's into a panel, [k][64]
//   product(rows)  few() from a panel
//   store          y[m, 64 channels of block b] = total + bias
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/aligned_buffer.h"
#include "core/fp_env.h"
#include "gemm/arguments.h"
#include "gemm/layout.h"

namespace octavo::float_w {

inline constexpr std::int64_t kRowsInCache = 768;        // whose totals stay in the second-level cache
inline constexpr std::int64_t kMinRowsPerItem = 48;      // that share a panel
inline constexpr std::int64_t kWorkPerThread = 1 << 18;  // multiplications: below, waking a thread costs more than it saves
inline constexpr std::int64_t kCacheLine = 64;
inline constexpr std::int64_t kAhead = 2048;  // dwords: how far weights are fetched before they are used

// What most Kernels have in common.
struct KernelInVectors {
  struct State {
    State() {}
  };
  static constexpr std::int64_t kAlign = 1;
  static constexpr std::int64_t kRows = 6;
  static constexpr std::int64_t kChunk = 128;
  static constexpr bool kRowMajor = false;
};

// The function for so many rows, of those that Of gives for 1 … kMost.
template <std::int64_t kMost, class Of>
auto function_for(int rows, Of) {
  static constexpr auto kFunctions = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{Of().template operator()<I + 1>()...};
  }
  (std::make_integer_sequence<int, kMost>());
  return kFunctions[static_cast<std::size_t>(rows - 1)];
}

struct Chunk {
  const std::uint32_t* q;          // [steps][64]
  const float* scale;              // [64]
  const std::uint8_t* zero_point;  // [64], of asymmetric formats
  std::int64_t steps;
  std::int64_t k;       // of its first column
  std::int64_t length;  // columns
  std::int64_t x;       // X's of a row before it
  std::int64_t padded;  // X's of a row in it
};

// The chunks of a block, in order.
template <class Kernel>
class Chunks {
 public:
  Chunks(const Block64& shape, const std::byte* data, std::int64_t block) : shape_(shape), data_(data), block_(block) {}

  bool next(Chunk& chunk) {
    if (step_ == shape_.steps(g_)) {
      if (++g_ == shape_.groups()) return false;
      step_ = 0;
    }
    chunk.q = reinterpret_cast<const std::uint32_t*>(data_ + shape_.integers(block_, g_)) + step_ * kBlockChannels;
    chunk.scale = reinterpret_cast<const float*>(data_ + shape_.scales(block_, g_));
    chunk.zero_point = reinterpret_cast<const std::uint8_t*>(data_ + shape_.zero_points(block_, g_));
    chunk.steps = std::min(Kernel::kChunk / shape_.unit(), shape_.steps(g_) - step_);
    chunk.k = shape_.first_k(g_) + step_ * shape_.unit();
    chunk.length = std::min(chunk.steps * shape_.unit(), shape_.length(g_) - step_ * shape_.unit());
    chunk.x = x_;
    chunk.padded = (chunk.steps * Kernel::kPerStep + Kernel::kAlign - 1) / Kernel::kAlign * Kernel::kAlign;
    x_ += chunk.padded;
    step_ += chunk.steps;
    return true;
  }

 private:
  const Block64& shape_;
  const std::byte* data_;
  std::int64_t block_;
  std::int64_t g_ = 0, step_ = 0, x_ = 0;
};

// The chunks that share a panel.
template <class Kernel>
struct Span {
  Chunk chunks[Kernel::kPanel / Kernel::kPerStep];
  std::int64_t count;
  std::int64_t x;       // X's of a row before it
  std::int64_t length;  // X's of a row in it
};

// The spans of a block, in order.
template <class Kernel>
class Spans {
 public:
  Spans(const Block64& shape, const std::byte* data, std::int64_t block) : chunks_(shape, data, block) {
    more_ = chunks_.next(chunk_);
  }

  bool next(Span<Kernel>& span) {
    if (!more_) return false;
    span.x = chunk_.x;
    span.count = span.length = 0;
    for (; more_ && span.length + chunk_.padded <= Kernel::kPanel; more_ = chunks_.next(chunk_)) {
      span.chunks[span.count++] = chunk_;
      span.length += chunk_.padded;
    }
    return true;
  }

 private:
  Chunks<Kernel> chunks_;
  Chunk chunk_;
  bool more_;
};

// Rows of x in tiles of almost equal size.
class Tiles {
 public:
  Tiles(std::int64_t rows, std::int64_t most) : rows_(rows), count_((rows + most - 1) / most) {}
  std::int64_t count() const { return count_; }
  std::int64_t first(std::int64_t t) const { return t * (rows_ / count_) + std::min(t, rows_ % count_); }
  std::int64_t rows(std::int64_t t) const { return first(t + 1) - first(t); }

 private:
  std::int64_t rows_, count_;
};

// Into the first-level cache, or the second. Always inlined: GCC 12 deletes calls of a function that only prefetches as
// having no effect.
template <int kLevel>
[[gnu::always_inline]] inline void prefetch(const void* begin, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += kCacheLine) {
    __builtin_prefetch(static_cast<const char*>(begin) + i, 0, kLevel == 1 ? 3 : 2);
  }
}

template <class Kernel>
class Product {
  using X = typename Kernel::X;

 public:
  explicit Product(const Arguments& a)
      : a_(a),
        shape_(a.packed.format, a.packed.N, a.packed.K),
        tiles_(Kernel::kRowMajor ? (a.x.rows + Kernel::kRows - 1) / Kernel::kRows * Kernel::kRows : a.x.rows,
               is_few() ? Kernel::kFewTile : Kernel::kRows),
        length_(length_of_row()),
        x_(tiles_.first(tiles_.count()) * length_ + kCacheLine) {}

  void run(Parallel& parallel) {
    const std::int64_t M = a_.x.rows;
    const std::int64_t row_work = std::max<std::int64_t>(1, a_.x.cols * 4);  // four additions' worth to convert an element
    parallel.run(0, tiles_.count(), kWorkPerThread / (row_work * Kernel::kRows) + 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   const ExactFloatScope exact;
                   for (std::int64_t t = begin; t < end; ++t) pack_tile(t);
                 });
    const std::int64_t blocks = shape_.blocks();
    const std::int64_t grain = kWorkPerThread / (a_.x.cols * kBlockChannels * std::max<std::int64_t>(1, M)) + 1;
    // Pieces of one block and some of the rows: all of them where they fit the cache and blocks keep every thread busy.
    std::int64_t pieces = (M + kRowsInCache - 1) / kRowsInCache;
    const std::int64_t wanted = (4 * parallel.num_threads() + blocks - 1) / blocks;
    if (parallel.num_threads() > 1) pieces = std::max(pieces, std::min(wanted, M / kMinRowsPerItem));
    const Tiles parts(tiles_.count(), (tiles_.count() + pieces - 1) / pieces);
    parallel.run(0, blocks * parts.count(), grain, [&](std::int64_t begin, std::int64_t end) {
      if constexpr (Kernel::kFewRows > 0) {
        if (is_few()) return multiply_few(parts, begin, end);
      }
      multiply_many(parts, begin, end);
    });
  }

 private:
  // X's of a row of x with the padding of its chunks.
  std::int64_t length_of_row() const {
    Chunk chunk;
    std::int64_t length = 0;
    for (Chunks<Kernel> chunks(shape_, a_.packed.data.data(), 0); chunks.next(chunk);) length = chunk.x + chunk.padded;
    return length;
  }

  // Where the x of tile t and a chunk is: [span][tile][chunk], but [chunk][tile] where there are no panels.
  X* of_many(std::int64_t t, const Span<Kernel>& span, const Chunk& chunk) const {
    return x_.data() + span.x * tiles_.first(tiles_.count()) + tiles_.first(t) * span.length +
           (chunk.x - span.x) * tiles_.rows(t);
  }
  X* of_few(std::int64_t t, const Chunk& chunk) const {
    return x_.data() + chunk.x * a_.x.rows + tiles_.first(t) * chunk.padded;
  }

  bool is_few() const { return a_.x.rows <= Kernel::kFewRows; }

  void pack_tile(std::int64_t t) {
    const std::int64_t first = tiles_.first(t), rows = tiles_.rows(t);
    Span<Kernel> span;
    for (Spans<Kernel> spans(shape_, a_.packed.data.data(), 0); spans.next(span);) {
      for (std::int64_t c = 0; c < span.count; ++c) {
        const Chunk& chunk = span.chunks[c];
        X* const to = is_few() ? of_few(t, chunk) : of_many(t, span, chunk);
        for (std::int64_t i = 0; i < rows; ++i) {
          if (first + i >= a_.x.rows) {
            std::memset(to + i * chunk.padded, 0, static_cast<std::size_t>(chunk.padded) * sizeof(X));
          } else if (Kernel::kRowMajor || rows == 1) {
            Kernel::convert(a_.x, first + i, chunk, to + i * chunk.padded);
          } else {
            alignas(kCacheLine) X values[Kernel::kChunk];
            Kernel::convert(a_.x, first + i, chunk, values);
            for (std::int64_t k = 0; k < chunk.padded; ++k) to[k * rows + i] = values[k];
          }
        }
      }
    }
  }

  // Chunk by chunk: the first tile reads it from memory, the others from the first-level cache.
  void multiply_few(const Tiles& parts, std::int64_t begin, std::int64_t end) const {
    const ExactFloatScope exact;
    alignas(kCacheLine) float total[Kernel::kFewRows * kBlockChannels];
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t b = item / parts.count(), part = item % parts.count();
      const std::int64_t first = parts.first(part), last = parts.first(part + 1);
      const std::int64_t row = tiles_.first(first), rows = tiles_.first(last) - row;
      std::fill_n(total, rows * kBlockChannels, 0.0f);
      Chunk chunk;
      for (Chunks<Kernel> chunks(shape_, a_.packed.data.data(), b); chunks.next(chunk);) {
        for (std::int64_t t = first; t < last; ++t) {
          float* const sums = total + (tiles_.first(t) - row) * kBlockChannels;
          Kernel::few(static_cast<int>(tiles_.rows(t)))(chunk, of_few(t, chunk), sums);
        }
      }
      for (std::int64_t m = 0; m < rows; ++m) Kernel::store(a_, row + m, b, total + m * kBlockChannels);
    }
  }

  void multiply_many(const Tiles& parts, std::int64_t begin, std::int64_t end) const {
    const ExactFloatScope exact;
    const typename Kernel::State state;
    AlignedBuffer<X> panel(Kernel::kPanel * kBlockChannels);
    std::int64_t most = 0;
    for (std::int64_t p = 0; p < parts.count(); ++p) {
      most = std::max(most, tiles_.first(parts.first(p + 1)) - tiles_.first(parts.first(p)));
    }
    AlignedBuffer<float> total(most * kBlockChannels);
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t b = item / parts.count(), part = item % parts.count();
      const std::int64_t first = parts.first(part), last = parts.first(part + 1);
      const std::int64_t row = tiles_.first(first), rows = tiles_.first(last) - row;
      std::fill_n(total.data(), rows * kBlockChannels, 0.0f);
      Span<Kernel> span;
      for (Spans<Kernel> spans(shape_, a_.packed.data.data(), b); spans.next(span);) {
        for (std::int64_t c = 0; c < span.count; ++c) {
          Kernel::dequantize(span.chunks[c], panel.data() + (span.chunks[c].x - span.x) * kBlockChannels);
        }
        multiply_panel(panel.data(), span, first, last, total.data());
      }
      for (std::int64_t m = 0; m < std::min(rows, a_.x.rows - row); ++m) {
        Kernel::store(a_, row + m, b, total.data() + m * kBlockChannels);
      }
    }
  }

  // Multiplies the tiles [first, last) with a panel. Each asks for its share of the weights that come next.
  void multiply_panel(const X* panel, const Span<Kernel>& span, std::int64_t first, std::int64_t last, float* total) const {
    const Chunk& end = span.chunks[span.count - 1];
    const auto* next = reinterpret_cast<const std::byte*>(end.q + end.steps * kBlockChannels);
    const std::int64_t bytes = next - reinterpret_cast<const std::byte*>(span.chunks[0].q);
    const std::int64_t share = (bytes / (last - first) + kCacheLine) / kCacheLine * kCacheLine;
    for (std::int64_t t = first; t < last; ++t, next += share) {
      prefetch<2>(next, share);

      const auto product = Kernel::product(static_cast<int>(std::min(tiles_.rows(t), a_.x.rows - tiles_.first(t))));
      float* const sums = total + (tiles_.first(t) - tiles_.first(first)) * kBlockChannels;
      for (std::int64_t c = 0; c < span.count; ++c) {
        const Chunk& chunk = span.chunks[c];
        product(panel + (chunk.x - span.x) * kBlockChannels, of_many(t, span, chunk), chunk.padded, chunk.scale, sums);
      }
    }
  }

  const Arguments& a_;
  Block64 shape_;
  Tiles tiles_;
  std::int64_t length_;
  AlignedBuffer<X> x_;
};

template <class Kernel>
void run(const Arguments& a, Parallel& parallel) {
  if (!a.y.empty()) Product<Kernel>(a).run(parallel);
}

}  // namespace octavo::float_w
