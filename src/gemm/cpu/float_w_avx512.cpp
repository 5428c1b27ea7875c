// Weights become float32 integers q - zero_point, exactly, by two or three instructions for 16 of them; 4 vectors of 16
// channels times up to 6 rows of x are summed in 24 registers.
#include "gemm/cpu/float_w_avx512.h"

#include "gemm/cpu/float_rows_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

using float_w::Chunk;

constexpr int kVectors = 4;  // of 16 channels in a block

// Bytes. One is moved to the top of its lane and converted as an integer there: (q - z) · 2^24, so x is scaled by 2^-24,
// which is exact but for subnormals.
template <bool kSymmetric>
class W8 {
 public:
  static constexpr int kUnit = 4;
  static constexpr float kScaleX = 0x1p-24f;
  using Dwords = __m512i;  // of 16 channels

  OCTAVO_AVX512_INLINE explicit W8(const Chunk& chunk) {
    if constexpr (!kSymmetric) {
      for (int j = 0; j < kVectors; ++j) {
        const __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(chunk.zero_point) + j));
        offset_[j] =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(zero, _mm512_set1_epi32(128))), _mm512_set1_ps(0x1p24f));
      }
    }
  }

  // The sign bit of q + 128 is the opposite of q's.
  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q, int /*j*/) const {
    return _mm512_xor_si512(_mm512_loadu_si512(q), _mm512_set1_epi8(-128));
  }

  template <int I>
  OCTAVO_AVX512_INLINE __m512 value(Dwords v, int j) const {
    __m512i top;
    if constexpr (I == 0) {
      top = _mm512_slli_epi32(v, 24);
    } else if constexpr (I == 3) {
      top = _mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xff000000u)));
    } else {  // indices with the upper bit set give zeros
      constexpr int kByte = I << 24 | 0x808080;
      top = _mm512_shuffle_epi8(v, _mm512_set4_epi32(kByte + 0xc000000, kByte + 0x8000000, kByte + 0x4000000, kByte));
    }
    const __m512 value = _mm512_cvtepi32_ps(top);
    return kSymmetric ? value : _mm512_sub_ps(value, offset_[j]);
  }

 private:
  __m512 offset_[kVectors];
};

// Nibbles are looked up: VPERMPS takes the lowest bits of a lane as index, 4 for a table in one register and 5 for one in
// two.
template <bool kSymmetric>
class W4;

template <>
class W4<true> {
 public:
  static constexpr int kUnit = 8;
  static constexpr float kScaleX = 1;
  using Dwords = __m512i;

  OCTAVO_AVX512_INLINE explicit W4(const Chunk&)
      : table_(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)) {}

  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q, int /*j*/) const { return _mm512_loadu_si512(q); }

  template <int I>
  OCTAVO_AVX512_INLINE __m512 value(Dwords v, int /*j*/) const {
    return _mm512_permutexvar_ps(I == 0 ? v : _mm512_srli_epi32(v, 4 * I), table_);
  }

 private:
  __m512 table_;
};

// The index is q + 16 - z, computed for four nibbles, one a byte, at once.
template <>
class W4<false> {
 public:
  static constexpr int kUnit = 8;
  static constexpr float kScaleX = 1;
  struct Dwords {
    __m512i even, odd;
  };

  OCTAVO_AVX512_INLINE explicit W4(const Chunk& chunk)
      : low_(_mm512_setr_ps(-16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1)),
        high_(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)) {
    for (int j = 0; j < kVectors; ++j) {
      const __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(chunk.zero_point) + j));
      offset_[j] = _mm512_mullo_epi32(_mm512_sub_epi32(_mm512_set1_epi32(16), zero), _mm512_set1_epi32(0x01010101));
    }
  }

  OCTAVO_AVX512_INLINE Dwords load(const std::uint32_t* q, int j) const {
    const __m512i v = _mm512_loadu_si512(q);
    const __m512i nibble = _mm512_set1_epi8(15);
    return {_mm512_add_epi8(_mm512_and_si512(v, nibble), offset_[j]),
            _mm512_add_epi8(_mm512_and_si512(_mm512_srli_epi32(v, 4), nibble), offset_[j])};
  }

  template <int I>
  OCTAVO_AVX512_INLINE __m512 value(const Dwords& v, int /*j*/) const {
    const __m512i bytes = I % 2 == 0 ? v.even : v.odd;
    return _mm512_permutex2var_ps(low_, I / 2 == 0 ? bytes : _mm512_srli_epi32(bytes, I / 2 * 8), high_);
  }

 private:
  __m512 low_, high_;
  __m512i offset_[kVectors];
};

// total += sum · scale
template <int M>
OCTAVO_AVX512_INLINE void add_scaled(const __m512 (&sum)[M][kVectors], const float* scale, float* total) {
  for (int j = 0; j < kVectors; ++j) {
    const __m512 s = _mm512_loadu_ps(scale + 16 * j);
    for (int m = 0; m < M; ++m) {
      float* const t = total + m * kBlockChannels + 16 * j;
      _mm512_storeu_ps(t, _mm512_fmadd_ps(sum[m][j], s, _mm512_loadu_ps(t)));
    }
  }
}

template <int M>
OCTAVO_AVX512_INLINE void clear(__m512 (&sum)[M][kVectors]) {
  for (int m = 0; m < M; ++m) {
    for (int j = 0; j < kVectors; ++j) sum[m][j] = _mm512_setzero_ps();
  }
}

// The I-th elements of the dwords of kWidth vectors, multiplied with M rows of x.
template <int I, int M, int kWidth, class Weights>
OCTAVO_AVX512_INLINE void multiply(const Weights& weights, const typename Weights::Dwords (&v)[kWidth], int j0,
                                   const float* x, __m512 (&sum)[M][kVectors]) {
  __m512 w[kWidth];
  for (int j = 0; j < kWidth; ++j) w[j] = weights.template value<I>(v[j], j0 + j);
  for (int m = 0; m < M; ++m) {
    const __m512 xm = _mm512_set1_ps(x[I * M + m]);
    for (int j = 0; j < kWidth; ++j) sum[m][j0 + j] = _mm512_fmadd_ps(xm, w[j], sum[m][j0 + j]);
  }
}

template <class Weights, int M>
OCTAVO_AVX512 void few_rows(const Chunk& chunk, const float* x, float* total) {
  constexpr int kWidth = M > 4 ? 2 : 4;  // so that everything has a register
  const Weights weights(chunk);
  __m512 sum[M][kVectors];
  clear(sum);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, x += Weights::kUnit * M) {
    float_w::prefetch(q + float_w::kAhead, kStepBytes);
#pragma GCC unroll 4
    for (int j0 = 0; j0 < kVectors; j0 += kWidth) {
      typename Weights::Dwords v[kWidth];
      for (int j = 0; j < kWidth; ++j) v[j] = weights.load(q + 16 * (j0 + j), j0 + j);
      multiply<0>(weights, v, j0, x, sum);
      multiply<1>(weights, v, j0, x, sum);
      multiply<2>(weights, v, j0, x, sum);
      multiply<3>(weights, v, j0, x, sum);
      if constexpr (Weights::kUnit == 8) {
        multiply<4>(weights, v, j0, x, sum);
        multiply<5>(weights, v, j0, x, sum);
        multiply<6>(weights, v, j0, x, sum);
        multiply<7>(weights, v, j0, x, sum);
      }
    }
  }
  add_scaled(sum, chunk.scale, total);
}

template <int I, class Weights>
OCTAVO_AVX512_INLINE void write(const Weights& weights, const typename Weights::Dwords& v, int j, float* panel) {
  _mm512_store_ps(panel + I * kBlockChannels, weights.template value<I>(v, j));
}

template <class Weights>
OCTAVO_AVX512 void fill_panel(const Chunk& chunk, float* panel) {
  const Weights weights(chunk);
  const std::uint32_t* q = chunk.q;
  for (std::int64_t step = 0; step < chunk.steps; ++step, q += kBlockChannels, panel += Weights::kUnit * kBlockChannels) {
    for (int j = 0; j < kVectors; ++j) {
      const typename Weights::Dwords v = weights.load(q + 16 * j, j);
      write<0>(weights, v, j, panel + 16 * j);
      write<1>(weights, v, j, panel + 16 * j);
      write<2>(weights, v, j, panel + 16 * j);
      write<3>(weights, v, j, panel + 16 * j);
      if constexpr (Weights::kUnit == 8) {
        write<4>(weights, v, j, panel + 16 * j);
        write<5>(weights, v, j, panel + 16 * j);
        write<6>(weights, v, j, panel + 16 * j);
        write<7>(weights, v, j, panel + 16 * j);
      }
    }
  }
}

template <int M>
OCTAVO_AVX512 void multiply_panel(const float* panel, const float* x, std::int64_t count, const float* scale, float* total) {
  __m512 sum[M][kVectors];
  clear(sum);
  for (std::int64_t k = 0; k < count; ++k, panel += kBlockChannels, x += M) {
    __m512 w[kVectors];
    for (int j = 0; j < kVectors; ++j) w[j] = _mm512_load_ps(panel + 16 * j);
    for (int m = 0; m < M; ++m) {
      const __m512 xm = _mm512_set1_ps(x[m]);
      for (int j = 0; j < kVectors; ++j) sum[m][j] = _mm512_fmadd_ps(xm, w[j], sum[m][j]);
    }
  }
  add_scaled(sum, scale, total);
}

OCTAVO_AVX512 void convert_row(const MatrixView& x, std::int64_t m, const Chunk& chunk, float scale, float* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (std::int64_t i = 0; i < chunk.padded; i += 16) {
    const __m512 values =
        float_w::load_floats(x, m, chunk.k + i, float_w::lanes16(std::max<std::int64_t>(0, chunk.length - i)));
    _mm512_mask_storeu_ps(out + i, float_w::lanes16(chunk.padded - i), _mm512_mul_ps(values, factor));
  }
}

template <class Weights>
struct Kernel {
  using X = float;
  struct State {
    State() {}
  };
  static constexpr std::int64_t kPerStep = Weights::kUnit;
  static constexpr std::int64_t kAlign = 1;
  static constexpr std::int64_t kRows = 6;
  static constexpr std::int64_t kFewRows = 6;
  static constexpr std::int64_t kPanel = 256;
  static constexpr bool kRowMajor = false;

  static void convert(const MatrixView& x, std::int64_t m, const Chunk& chunk, float* out) {
    convert_row(x, m, chunk, Weights::kScaleX, out);
  }
  static auto few(int rows) {
    static constexpr decltype(&few_rows<Weights, 1>) kFew[] = {few_rows<Weights, 1>, few_rows<Weights, 2>,
                                                               few_rows<Weights, 3>, few_rows<Weights, 4>,
                                                               few_rows<Weights, 5>, few_rows<Weights, 6>};
    return kFew[rows - 1];
  }
  static void dequantize(const Chunk& chunk, float* panel) { fill_panel<Weights>(chunk, panel); }
  static auto product(int rows) {
    static constexpr decltype(&multiply_panel<1>) kProduct[] = {multiply_panel<1>, multiply_panel<2>, multiply_panel<3>,
                                                                multiply_panel<4>, multiply_panel<5>, multiply_panel<6>};
    return kProduct[rows - 1];
  }
  static void store(const Arguments& a, std::int64_t m, std::int64_t b, const float* total) {
    float_w::store_row_avx512(a, m, b, total);
  }
};

}  // namespace

void cpu_float_w8_avx512(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<W8<true>>>(a, parallel) : float_w::run<Kernel<W8<false>>>(a, parallel);
}

void cpu_float_w4_avx512(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<W4<true>>>(a, parallel) : float_w::run<Kernel<W4<false>>>(a, parallel);
}

}  // namespace octavo

#endif  // __x86_64__
