#include "gemm/cpu/s8_w8_avx512vnni.h"

#include "gemm/cpu/s8_w8.h"
#include "gemm/cpu/store_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr std::int64_t kPrefetchBytes = 4096;
constexpr std::int64_t kPrefetchXBytes = 1024;

// A tile keeps rows x 64 sums in registers: at six rows, 24 of the 32.
template <int kRows>
OCTAVO_AVX512_VNNI void add_products(const std::uint8_t* w, std::int64_t steps, const std::uint32_t* x, std::int32_t* sums,
                                     const std::uint8_t* ahead) {
  __m512i acc[kRows][4];
  OCTAVO_UNROLL
  for (int i = 0; i < kRows; ++i) {
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_load_si512(sums + i * kBlockChannels + 16 * j);
  }
  for (std::int64_t s = 0; s < steps; ++s) {
    __m512i q[4];
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) {
      q[j] = _mm512_load_si512(w + s * kStepBytes + 64 * j);
      _mm_prefetch(reinterpret_cast<const char*>(w + s * kStepBytes + 64 * j + kPrefetchBytes), _MM_HINT_T0);
    }
    _mm_prefetch(reinterpret_cast<const char*>(x + s * kRows) + kPrefetchXBytes, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(ahead + s * 64), _MM_HINT_T1);
    OCTAVO_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const __m512i xi = _mm512_set1_epi32(static_cast<int>(x[s * kRows + i]));
      OCTAVO_UNROLL
      for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], q[j], xi);
    }
  }
  OCTAVO_UNROLL
  for (int i = 0; i < kRows; ++i) {
    OCTAVO_UNROLL
    for (int j = 0; j < 4; ++j) _mm512_store_si512(sums + i * kBlockChannels + 16 * j, acc[i][j]);
  }
}

struct Avx512Vnni {
  static constexpr int kRows = 6;
  static constexpr std::int64_t kStepsInCache = 2048;
  static constexpr auto kOrder = IntegerRows::Order::kBySteps;

  static void add_products(const std::uint8_t* w, std::int64_t steps, const IntegerTile& x, std::int32_t* sums,
                           const std::uint8_t* ahead) {
    constexpr decltype(&octavo::add_products<1>) kByRows[] = {octavo::add_products<1>, octavo::add_products<2>,
                                                              octavo::add_products<3>, octavo::add_products<4>,
                                                              octavo::add_products<5>, octavo::add_products<6>};
    kByRows[x.rows - 1](w, steps, x.dwords, sums, ahead);
  }

  OCTAVO_AVX512 static void store_sums(const std::int32_t* sums, const Arguments& a, const float* w_scale, std::int64_t m,
                                       std::int64_t n, std::int64_t cols) {
    octavo::store_sums(sums, a, w_scale, m, n, cols);
  }
};

}  // namespace

void cpu_s8_w8_avx512vnni(const Arguments& a, Parallel& parallel) { S8W8<Avx512Vnni>(a, parallel).run(parallel); }

}  // namespace octavo

#endif  // __x86_64__
