// Weights become float32 integers q - zero_point, exactly, by three instructions for 8 of them. A block is gone through in
// passes of as many vectors of 8 channels as there are registers for their sums with the rows of x.
#include "gemm/cpu/float_w_avx2.h"

#include <utility>

#include "gemm/cpu/float_w.h"
#include "gemm/cpu/store_avx2.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

using float_w::Chunk;

constexpr int kVectors = 8;       // of 8 channels in a block
constexpr int kStripVectors = 2;  // of a panel that are multiplied at once
constexpr int kStrip = 8 * kStripVectors;

template <int kCount>
using Indices = std::make_integer_sequence<int, kCount>;

// An integer at bit s of a dword, with the exponent of 2^(23-s) above it, is the lowest bits of a float32's integer part:
// 2^(23-s) + q + offset. What is too much is subtracted. Integers in the upper half of a dword are loaded two bytes further,
// which costs less than shifting them; what follows the last dwords is their scales.
template <int kBits, bool kSymmetric>
class Weights {
 public:
  static constexpr int kPlaces = 16 / kBits;  // in half a dword
  static constexpr int kUnit = 2 * kPlaces;

  OCTAVO_AVX2_INLINE explicit Weights(const Chunk& chunk) {
    if constexpr (!kSymmetric) {
      for (int j = 0; j < kVectors; ++j) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(chunk.zero_point + 8 * j));
        const __m256 zero = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        for (int p = 0; p < kPlaces; ++p) {
          _mm256_store_ps(offset_[p][j], _mm256_add_ps(zero, _mm256_set1_ps(too_much(p))));
        }
      }
    }
  }

  // Element I of the dwords of the j-th vector of a block, which are at q.
  template <int I>
  OCTAVO_AVX2_INLINE __m256 value(const std::uint32_t* q, int j) const {
    constexpr int kPlace = I % kPlaces;
    constexpr int kMask = ((1 << kBits) - 1) << (kPlace * kBits);
    const auto* half = reinterpret_cast<const char*>(q) + I / kPlaces * 2;
    const __m256i bits =
        _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(half)), _mm256_set1_epi32(kMask));
    const __m256 number = _mm256_or_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(too_much(kPlace)));
    const __m256 offset =
        kSymmetric ? _mm256_set1_ps(too_much(kPlace) + (1 << (kBits - 1))) : _mm256_load_ps(offset_[kPlace][j]);
    return _mm256_sub_ps(number, offset);
  }

 private:
  static constexpr float too_much(int place) { return static_cast<float>(1 << (23 - place * kBits)); }

  alignas(32) float offset_[kPlaces][kVectors][8];
};

template <int... I>
OCTAVO_AVX2_INLINE void clear(std::integer_sequence<int, I...>, __m256* sum) {
  ((sum[I] = _mm256_setzero_ps()), ...);
}

// total += sum · scale, of kWidth vectors for each row
template <int kWidth, int... I>
OCTAVO_AVX2_INLINE void add_scaled(std::integer_sequence<int, I...>, const __m256* sum, const float* scale, float* total) {
  ((_mm256_storeu_ps(total + I / kWidth * kBlockChannels + 8 * (I % kWidth),
                     _mm256_fmadd_ps(sum[I], _mm256_loadu_ps(scale + 8 * (I % kWidth)),
                                     _mm256_loadu_ps(total + I / kWidth * kBlockChannels + 8 * (I % kWidth))))),
   ...);
}

// Row m of x times the vectors of a pass.
template <int m, int... J>
OCTAVO_AVX2_INLINE void add_row(std::integer_sequence<int, J...>, __m256 x, const __m256* w, __m256* sum) {
  ((sum[m * sizeof...(J) + J] = _mm256_fmadd_ps(x, w[J], sum[m * sizeof...(J) + J])), ...);
}

template <int kWidth, int... M>
OCTAVO_AVX2_INLINE void add_rows(std::integer_sequence<int, M...>, const float* x, const __m256* w, __m256* sum) {
  (add_row<M>(Indices<kWidth>(), _mm256_broadcast_ss(x + M), w, sum), ...);
}

// Vector j of a pass times the rows of x.
template <int j, int kWidth, int... M>
OCTAVO_AVX2_INLINE void add_vector(std::integer_sequence<int, M...>, const __m256* x, __m256 w, __m256* sum) {
  ((sum[M * kWidth + j] = _mm256_fmadd_ps(x[M], w, sum[M * kWidth + j])), ...);
}

template <int... M>
OCTAVO_AVX2_INLINE void broadcast(std::integer_sequence<int, M...>, const float* x, __m256* out) {
  ((out[M] = _mm256_broadcast_ss(x + M)), ...);
}

// Element I of the dwords of a pass, whose first vector is the j0-th. Of x and weights, the fewer wait in registers.
template <int I, int M, class W, int... J>
OCTAVO_AVX2_INLINE void add_element(std::integer_sequence<int, J...>, const W& weights, const std::uint32_t* q, int j0,
                                    const float* x, __m256* sum) {
  constexpr int kWidth = sizeof...(J);
  if constexpr (M < kWidth) {
    __m256 xs[M];
    broadcast(Indices<M>(), x + I * M, xs);
    (add_vector<J, kWidth>(Indices<M>(), xs, weights.template value<I>(q + 8 * J, j0 + J), sum), ...);
  } else {
    const __m256 w[] = {weights.template value<I>(q + 8 * J, j0 + J)...};
    add_rows<kWidth>(Indices<M>(), x + I * M, w, sum);
  }
}

template <int M, int kWidth, class W, int... I>
OCTAVO_AVX2_INLINE void add_dwords(std::integer_sequence<int, I...>, const W& weights, const std::uint32_t* q, int j0,
                                   const float* x, __m256* sum) {
  (add_element<I, M>(Indices<kWidth>(), weights, q, j0, x, sum), ...);
}

template <class W, int M>
OCTAVO_AVX2 void few_rows(const Chunk& chunk, const float* x, float* total) {
  // As many as have registers, beside what takes the dwords apart.
  constexpr int kWidth = W::kUnit == 4 ? (M == 1 ? 8 : M <= 3 ? 4 : 2) : (M <= 2 ? 4 : 2);
  const W weights(chunk);
  for (int j0 = 0; j0 < kVectors; j0 += kWidth) {
    __m256 sum[M * kWidth];
    clear(Indices<M * kWidth>(), sum);
    const std::uint32_t* q = chunk.q + 8 * j0;
    const float* xs = x;
    for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, xs += W::kUnit * M) {
      if (j0 == 0) float_w::prefetch<1>(q + float_w::kAhead, kStepBytes);
      add_dwords<M, kWidth>(Indices<W::kUnit>(), weights, q, j0, xs, sum);
    }
    add_scaled<kWidth>(Indices<M * kWidth>(), sum, chunk.scale + 8 * j0, total + 8 * j0);
  }
}

template <class W, int... I>
OCTAVO_AVX2_INLINE void write(std::integer_sequence<int, I...>, const W& weights, const std::uint32_t* q, int j,
                              float* panel) {
  (_mm256_store_ps(panel + I * kStrip, weights.template value<I>(q, j)), ...);
}

// [strip][k][16 channels]
template <class W>
OCTAVO_AVX2 void fill_panel(const Chunk& chunk, float* panel) {
  const W weights(chunk);
  for (std::int64_t step = 0; step < chunk.steps; ++step) {
    for (int j = 0; j < kVectors; ++j) {
      float* const to = panel + j / kStripVectors * kStrip * chunk.padded + j % kStripVectors * 8;
      write(Indices<W::kUnit>(), weights, chunk.q + step * kBlockChannels + 8 * j, j, to + step * W::kUnit * kStrip);
    }
  }
}

template <int M>
OCTAVO_AVX2 void multiply_panel(const float* panel, const float* x, std::int64_t count, const float* scale, float* total) {
  for (int strip = 0; strip < kBlockChannels; strip += kStrip) {
    __m256 sum[M * kStripVectors];
    clear(Indices<M * kStripVectors>(), sum);
    const float* xs = x;
    for (std::int64_t k = 0; k < count; ++k, panel += kStrip, xs += M) {
      const __m256 w[] = {_mm256_load_ps(panel), _mm256_load_ps(panel + 8)};
      add_rows<kStripVectors>(Indices<M>(), xs, w, sum);
    }
    add_scaled<kStripVectors>(Indices<M * kStripVectors>(), sum, scale + strip, total + strip);
  }
}

OCTAVO_AVX2 void convert_row(const MatrixView& x, std::int64_t m, const Chunk& chunk, float* out) {
  std::int64_t i = 0;
  for (; i + 8 <= chunk.length; i += 8) _mm256_storeu_ps(out + i, load_floats8(x, m, chunk.k + i));
  visit_float(x.dtype, [&](auto type) {
    for (; i < chunk.length; ++i) out[i] = to_float(x.row<decltype(type)>(m)[chunk.k + i]);
  });
  std::fill(out + i, out + chunk.padded, 0.0f);
}

OCTAVO_AVX2 void store_row(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
  const std::int64_t n = b * kBlockChannels;
  store_totals_avx2(total, a, m, n, std::min(kBlockChannels, a.y.cols - n));
}

template <class W>
struct Kernel : float_w::KernelInVectors {
  using X = float;
  static constexpr std::int64_t kPerStep = W::kUnit;
  static constexpr std::int64_t kFewRows = 4;
  static constexpr std::int64_t kFewTile = 4;
  static constexpr std::int64_t kPanel = 128;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, float* out) { convert_row(x, m, chunk, out); }
  static auto few(int rows) {
    return float_w::function_for<kFewTile>(rows, []<int M> { return few_rows<W, M>; });
  }
  static void dequantize(const Chunk& chunk, float* panel) { fill_panel<W>(chunk, panel); }
  static auto product(int rows) {
    return float_w::function_for<kRows>(rows, []<int M> { return multiply_panel<M>; });
  }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) { store_row(a, m, b, total); }
};

}  // namespace

void cpu_float_w8_avx2(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<Weights<8, true>>>(a, parallel)
                            : float_w::run<Kernel<Weights<8, false>>>(a, parallel);
}

void cpu_float_w4_avx2(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<Weights<4, true>>>(a, parallel)
                            : float_w::run<Kernel<Weights<4, false>>>(a, parallel);
}

}  // namespace octavo

#endif  // __x86_64__
