#include <atomic>

#include "bench/roofs.h"
#include "core/cpu_features.h"
#include "core/simd.h"

namespace octavo::bench {
namespace {

constexpr std::int64_t kLine = 64;
constexpr std::int64_t kGrainLines = 4096;

// `lines` cache lines from an aligned address.
std::uint64_t read_scalar(const std::byte* data, std::int64_t lines) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(data);
  std::uint64_t sum[8] = {};
  for (std::int64_t i = 0; i < lines * 8; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] ^= words[i + j];
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

#if defined(__x86_64__)
OCTAVO_AVX2 std::uint64_t read_avx2(const std::byte* data, std::int64_t lines) {
  const auto* vectors = reinterpret_cast<const __m256i*>(data);
  __m256i sum[4] = {};
  for (std::int64_t i = 0; i < lines; ++i) {
    sum[i % 2 * 2] = _mm256_xor_si256(sum[i % 2 * 2], _mm256_load_si256(vectors + 2 * i));
    sum[i % 2 * 2 + 1] = _mm256_xor_si256(sum[i % 2 * 2 + 1], _mm256_load_si256(vectors + 2 * i + 1));
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<std::uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^
                                    _mm256_extract_epi64(all, 2) ^ _mm256_extract_epi64(all, 3));
}

OCTAVO_AVX512 std::uint64_t read_avx512(const std::byte* data, std::int64_t lines) {
  __m512i a = _mm512_setzero_si512();
  __m512i b = a;
  __m512i c = a;
  __m512i d = a;
  std::int64_t i = 0;
  for (; i + 4 <= lines; i += 4) {
    a = _mm512_xor_si512(a, _mm512_load_si512(data + i * kLine));
    b = _mm512_xor_si512(b, _mm512_load_si512(data + i * kLine + 64));
    c = _mm512_xor_si512(c, _mm512_load_si512(data + i * kLine + 128));
    d = _mm512_xor_si512(d, _mm512_load_si512(data + i * kLine + 192));
  }
  for (; i < lines; ++i) a = _mm512_xor_si512(a, _mm512_load_si512(data + i * kLine));
  alignas(64) std::uint64_t words[8];
  _mm512_store_si512(words, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
  return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}
#endif

using ReadLines = std::uint64_t (*)(const std::byte* data, std::int64_t lines);

ReadLines widest() {
#if defined(__x86_64__)
  if (cpu_features().avx512) return read_avx512;
  if (cpu_features().avx2) return read_avx2;
#endif
  return read_scalar;
}

}  // namespace

std::uint64_t read_all(std::span<const std::byte> bytes, Parallel& parallel) {
  static const ReadLines read = widest();
  std::atomic<std::uint64_t> sum = 0;
  const auto lines = static_cast<std::int64_t>(bytes.size()) / kLine;
  parallel.run(0, lines, kGrainLines, [&](std::int64_t begin, std::int64_t end) {
    sum.fetch_xor(read(bytes.data() + begin * kLine, end - begin), std::memory_order_relaxed);
  });
  return sum;
}

}  // namespace octavo::bench
