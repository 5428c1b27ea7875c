// A tile product takes 16 rows of x by 64 k and 64 k by 16 channels, which is how packed weights lie: 16 steps of one dword
// a channel, 256 bytes apart. Four of them at a time: 32 rows of x by 32 channels.
#include "gemm/cpu/integer_amx.h"

#include <cstring>

#include "core/amx.h"
#include "gemm/cpu/s8_w8.h"
#include "gemm/cpu/s8g_w4.h"
#include "gemm/cpu/store_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kTileSteps = 16;
constexpr std::int64_t kSumsStride = kBlockChannels * 4;

// Tiles 0 … 3: sums, of the first and second rows of x by the first and second channels. 4, 5: x. 6, 7: weights.
TileConfig config_of(int rows) {
  const std::int64_t upper = std::min<std::int64_t>(rows, kTileRows);
  const std::int64_t lower = std::max<std::int64_t>(rows - kTileRows, 1);  // a tile has a row at least; unused then
  TileConfig config;
  for (int tile : {0, 1, 4}) config.set(tile, upper, 64);
  for (int tile : {2, 3, 5}) config.set(tile, lower, 64);
  for (int tile : {6, 7}) config.set(tile, kTileSteps, 64);
  return config;
}

// 32 channels, with a second sixteen rows of x or without.
template <bool kLower>
OCTAVO_AMX_INT8 void multiply(const std::uint8_t* w, std::int64_t steps, const IntegerTile& x, std::int32_t* sums) {
  std::int32_t* lower_sums = sums + kTileRows * kBlockChannels;
  _tile_loadd(0, sums, kSumsStride);
  _tile_loadd(1, sums + 16, kSumsStride);
  if constexpr (kLower) {
    _tile_loadd(2, lower_sums, kSumsStride);
    _tile_loadd(3, lower_sums + 16, kSumsStride);
  }
  for (std::int64_t s = 0; s < steps; s += kTileSteps) {
    const std::uint8_t* step = w + s * kStepBytes;
    alignas(64) std::uint8_t rest[kTileSteps * kStepBytes / 2];
    std::int64_t stride = kStepBytes;
    if (s + kTileSteps > steps) {  // whatever x has beyond its end is multiplied by zeros
      stride = kStepBytes / 2;
      std::memset(rest, 0, sizeof rest);
      for (std::int64_t i = 0; i < steps - s; ++i) std::memcpy(rest + i * stride, step + i * kStepBytes, kStepBytes / 2);
      step = rest;
      tile_memory_fence();
    }
    _tile_loadd(6, step, stride);
    _tile_loadd(7, step + 64, stride);
    const std::uint32_t* lines = x.dwords + s * x.rows;
    _tile_loadd(4, lines, 64);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(1, 4, 7);
    if constexpr (kLower) {
      _tile_loadd(5, lines + kTileRows * 16, 64);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumsStride);
  _tile_stored(1, sums + 16, kSumsStride);
  if constexpr (kLower) {
    _tile_stored(2, lower_sums, kSumsStride);
    _tile_stored(3, lower_sums + 16, kSumsStride);
  }
}

struct AmxInt8 {
  static constexpr int kRows = 2 * kTileRows;
  static constexpr std::int64_t kStepsInCache = 256;
  static constexpr auto kOrder = IntegerRows::Order::kByLines;
  static constexpr std::int64_t kTilesWorthExpanding = 4;

  OCTAVO_AMX_INT8 static void add_products(const std::uint8_t* w, std::int64_t steps, const IntegerTile& x,
                                           std::int32_t* sums, const std::uint8_t* ahead) {
    const TileConfig config = config_of(x.rows);
    tile_memory_fence();
    _tile_loadconfig(&config);
    for (std::int64_t s = 0; s < steps; ++s) _mm_prefetch(reinterpret_cast<const char*>(ahead + s * 64), _MM_HINT_T1);
    for (int channel = 0; channel < kBlockChannels; channel += 32) {
      if (x.rows > kTileRows) {
        multiply<true>(w + 4 * channel, steps, x, sums + channel);
      } else {
        multiply<false>(w + 4 * channel, steps, x, sums + channel);
      }
    }
    _tile_release();
    tile_memory_fence();
  }

  OCTAVO_AVX512 static void store_sums(const std::int32_t* sums, const Arguments& a, const float* w_scale, std::int64_t m,
                                       std::int64_t n, std::int64_t cols) {
    octavo::store_sums(sums, a, w_scale, m, n, cols);
  }

  static void add_groups(const GroupRun& run, float* totals) {
    for (std::int64_t i = 0; i < run.count; ++i) add_group<true>(run.group(i), totals);
  }
  static void add_expanded_groups(const GroupRun& run, float* totals) {
    for (std::int64_t i = 0; i < run.count; ++i) add_group<false>(run.group(i), totals);
  }

  template <bool kNibbles>
  OCTAVO_AMX_INT8 static void add_group(const GroupOperands& group, float* totals) {
    alignas(64) std::int32_t sums[kRows * kBlockChannels];
    start_group(group, sums);
    if constexpr (kNibbles) {
      alignas(64) std::uint8_t bytes[kTileSteps * kStepBytes];
      constexpr std::int64_t kSteps = kTileSteps / 2;
      for (std::int64_t s = 0; s < group.steps; s += kSteps) {
        const std::int64_t count = std::min(kSteps, group.steps - s);
        expand(group.w + s * kStepBytes, count, bytes);
        const IntegerTile x = {group.x.dwords + 2 * s * group.x.rows, group.x.rows};
        add_products(bytes, 2 * count, x, sums, group.ahead + s * 64);
      }
    } else {
      add_products(group.w, 2 * group.steps, group.x, sums, group.ahead);
    }
    end_group(group, sums, totals);
  }

  OCTAVO_AVX512 static void expand(const std::uint8_t* w, std::int64_t steps, std::uint8_t* out) {
    const __m512i low = _mm512_set1_epi8(0xf);
    for (std::int64_t s = 0; s < steps; ++s, w += kStepBytes, out += 2 * kStepBytes) {
      for (int j = 0; j < 4; ++j) {
        const __m512i pairs = _mm512_load_si512(w + 64 * j);
        _mm512_store_si512(out + 64 * j, _mm512_and_si512(pairs, low));
        _mm512_store_si512(out + kStepBytes + 64 * j, _mm512_and_si512(_mm512_srli_epi32(pairs, 4), low));
      }
    }
  }

  OCTAVO_AVX512 static void store_totals(const float* totals, const Arguments& a, std::int64_t m, std::int64_t n,
                                         std::int64_t cols) {
    octavo::store_totals(totals, a, m, n, cols);
  }

 private:
  // -z · Σ x
  OCTAVO_AVX512 static void start_group(const GroupOperands& group, std::int32_t* sums) {
    for (int j = 0; j < 4; ++j) {
      __m512i z = _mm512_set1_epi32(8);
      if (group.zero_point != nullptr) {
        z = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(group.zero_point) + j));
      }
      for (int i = 0; i < group.x.rows; ++i) {
        const __m512i sum = _mm512_mullo_epi32(z, _mm512_set1_epi32(-group.x_sums[i]));
        _mm512_store_si512(sums + i * kBlockChannels + 16 * j, sum);
      }
    }
  }

  OCTAVO_AVX512 static void end_group(const GroupOperands& group, const std::int32_t* sums, float* totals) {
    for (int j = 0; j < 4; ++j) {
      const __m512 w_scale = _mm512_load_ps(group.w_scale + 16 * j);
      for (int i = 0; i < group.x.rows; ++i) {
        const std::int64_t at = i * kBlockChannels + 16 * j;
        const __m512 scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(group.x_scale[i]));
        const __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums + at)), scale);
        _mm512_store_ps(totals + at, _mm512_add_ps(_mm512_load_ps(totals + at), term));
      }
    }
  }
};

}  // namespace

void cpu_s8_w8_amx(const Arguments& a, Parallel& parallel) { S8W8<AmxInt8>(a, parallel).run(parallel); }
void cpu_s8g_w4_amx(const Arguments& a, Parallel& parallel) { linear_w4a8<AmxInt8>(a, parallel); }

}  // namespace octavo

#endif  // __x86_64__
