#include "gemm/cpu/integer_avxvnni.h"

#include "gemm/cpu/s8_w8.h"
#include "gemm/cpu/s8g_w4.h"
#include "gemm/cpu/store_avx2.h"

#if defined(__x86_64__)

namespace octavo {

// The instruction has two encodings, one of each set.
namespace avxvnni {
namespace {
struct Bytes {
  using W = __m256i;
  using X = __m256i;
  OCTAVO_AVX_VNNI_INLINE static W weights(__m256i q) { return q; }
  OCTAVO_AVX_VNNI_INLINE static X row(std::uint32_t dword) { return _mm256_set1_epi32(static_cast<int>(dword)); }
  OCTAVO_AVX_VNNI_INLINE static void add(__m256i& acc, W w, X x) { acc = _mm256_dpbusd_avx_epi32(acc, w, x); }
};
#define OCTAVO_YMM OCTAVO_AVX_VNNI
#include "gemm/cpu/integer_ymm.inc"
#undef OCTAVO_YMM
}  // namespace
}  // namespace avxvnni

namespace avx512vnni {
namespace {
struct Bytes {
  using W = __m256i;
  using X = __m256i;
  OCTAVO_AVX512_VNNI_INLINE static W weights(__m256i q) { return q; }
  OCTAVO_AVX512_VNNI_INLINE static X row(std::uint32_t dword) { return _mm256_set1_epi32(static_cast<int>(dword)); }
  OCTAVO_AVX512_VNNI_INLINE static void add(__m256i& acc, W w, X x) { acc = _mm256_dpbusd_epi32(acc, w, x); }
};
#define OCTAVO_YMM OCTAVO_AVX512_VNNI
#include "gemm/cpu/integer_ymm.inc"
#undef OCTAVO_YMM
}  // namespace
}  // namespace avx512vnni

void cpu_s8_w8_avxvnni(const Arguments& a, Parallel& parallel) { S8W8<avxvnni::Ymm>(a, parallel).run(parallel); }
void cpu_s8g_w4_avxvnni(const Arguments& a, Parallel& parallel) { linear_w4a8<avxvnni::Ymm>(a, parallel); }

void cpu_s8_w8_avx512vnni_ymm(const Arguments& a, Parallel& parallel) { S8W8<avx512vnni::Ymm>(a, parallel).run(parallel); }
void cpu_s8g_w4_avx512vnni_ymm(const Arguments& a, Parallel& parallel) { linear_w4a8<avx512vnni::Ymm>(a, parallel); }

}  // namespace octavo

#endif  // __x86_64__
