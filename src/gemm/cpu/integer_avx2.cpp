#include "gemm/cpu/integer_avx2.h"

#include "gemm/cpu/s8_w8.h"
#include "gemm/cpu/s8g_w4.h"
#include "gemm/cpu/store_avx2.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

// Of each dword, the bytes of even and of odd k as pairs of 16-bit integers.
struct Bytes {
  struct W {
    __m256i even, odd;
  };
  using X = W;

  OCTAVO_AVX2_INLINE static W weights(__m256i q) {
    return {_mm256_and_si256(q, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(q, 8)};
  }
  OCTAVO_AVX2_INLINE static X row(std::uint32_t dword) {
    const __m256i x = _mm256_set1_epi32(static_cast<int>(dword));
    return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
  }
  OCTAVO_AVX2_INLINE static void add(__m256i& acc, const W& w, const X& x) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w.even, x.even));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w.odd, x.odd));
  }
};

#define OCTAVO_YMM OCTAVO_AVX2
#include "gemm/cpu/integer_ymm.inc"
#undef OCTAVO_YMM

}  // namespace

void cpu_s8_w8_avx2(const Arguments& a, Parallel& parallel) { S8W8<Ymm>(a, parallel).run(parallel); }
void cpu_s8g_w4_avx2(const Arguments& a, Parallel& parallel) { linear_w4a8<Ymm>(a, parallel); }

}  // namespace octavo

#endif  // __x86_64__
