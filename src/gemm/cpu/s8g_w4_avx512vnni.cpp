#include "gemm/cpu/s8g_w4_avx512vnni.h"

#include "gemm/cpu/s8g_w4.h"
#include "gemm/cpu/store_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr std::int64_t kPrefetchBytes = 4096;

// acc += q · x, four neighbours a lane. Around the intrinsic, GCC 12 copies and spills accumulators.
OCTAVO_AVX512_VNNI_INLINE void add_products(__m512i& acc, __m512i q, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(q), "v"(x));
}

// -z · Σ x, where the sums of a group begin.
OCTAVO_AVX512_VNNI_INLINE __m512i start_of(const GroupOperands& group, int row, int j) {
  if (group.zero_point == nullptr) return _mm512_set1_epi32(-8 * group.x_sums[row]);
  const __m512i z = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(group.zero_point) + j));
  return _mm512_mullo_epi32(z, _mm512_set1_epi32(-group.x_sums[row]));
}

// Nibbles of even k are multiplied with one dword of x, those of odd k with another.
template <int kRows>
OCTAVO_AVX512_VNNI_INLINE void add_group(const GroupOperands& group, float* totals) {
  const __m512i low = _mm512_set1_epi8(0xf);
  __m512i acc[kRows][4];
  OCTAVO_UNROLL
  for (int i = 0; i < kRows; ++i) {
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) acc[i][j] = start_of(group, i, j);
  }
  const std::uint8_t* w = group.w;
  const std::uint32_t* x = group.x.dwords;
  for (std::int64_t s = 0; s < group.steps; ++s) {
    _mm_prefetch(reinterpret_cast<const char*>(group.ahead + s * 64), _MM_HINT_T1);
    OCTAVO_UNROLL
    for (int odd = 0; odd < 2; ++odd, x += kRows) {
      __m512i q[4];
      OCTAVO_UNROLL
      for (int j = 0; j < 4; ++j) {
        q[j] = _mm512_load_si512(w + 64 * j);
        q[j] = _mm512_and_si512(odd != 0 ? _mm512_srli_epi32(q[j], 4) : q[j], low);
        if (odd != 0) _mm_prefetch(reinterpret_cast<const char*>(w + 64 * j + kPrefetchBytes), _MM_HINT_T0);
      }
      if (odd != 0) w += kStepBytes;
      OCTAVO_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const __m512i xi = _mm512_set1_epi32(static_cast<int>(x[i]));
        OCTAVO_UNROLL
        for (int j = 0; j < 4; ++j) add_products(acc[i][j], q[j], xi);
      }
    }
  }
  OCTAVO_UNROLL
  for (int i = 0; i < kRows; ++i) {
    const __m512 x_scale = _mm512_set1_ps(group.x_scale[i]);
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      float* total = totals + i * kBlockChannels + 16 * j;
      const __m512 scale = _mm512_mul_ps(_mm512_load_ps(group.w_scale + 16 * j), x_scale);
      const __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][j]), scale);
      _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), term));
    }
  }
}

template <int kRows>
OCTAVO_AVX512_VNNI void add_groups(const GroupRun& run, float* totals) {
  for (std::int64_t i = 0; i < run.count; ++i) add_group<kRows>(run.group(i), totals);
}

struct Avx512Vnni {
  static constexpr int kRows = 6;
  static constexpr auto kOrder = IntegerRows::Order::kBySteps;
  static constexpr std::int64_t kTilesWorthExpanding = kNever;  // it cost 2 to 6 % at 64 to 512 rows on Zen 4

  static void add_groups(const GroupRun& run, float* totals) {
    constexpr decltype(&octavo::add_groups<1>) kByRows[] = {octavo::add_groups<1>, octavo::add_groups<2>,
                                                            octavo::add_groups<3>, octavo::add_groups<4>,
                                                            octavo::add_groups<5>, octavo::add_groups<6>};
    kByRows[run.first.x.rows - 1](run, totals);
  }

  OCTAVO_AVX512 static void store_totals(const float* totals, const Arguments& a, std::int64_t m, std::int64_t n,
                                         std::int64_t cols) {
    octavo::store_totals(totals, a, m, n, cols);
  }
};

}  // namespace

void cpu_s8g_w4_avx512vnni(const Arguments& a, Parallel& parallel) { linear_w4a8<Avx512Vnni>(a, parallel); }

}  // namespace octavo

#endif  // __x86_64__
