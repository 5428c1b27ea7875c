// A tile product takes 16 rows of x by 16 pairs and 16 pairs by 16 channels of a panel of bf16. Four of them at a time: 32
// rows of x by 32 channels, whose sums are scaled and added to the totals chunk by chunk.
#include "gemm/cpu/bf16_w_amx.h"

#include "core/amx.h"
#include "gemm/cpu/bf16_pairs_avx512.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kTilePairs = 16;
constexpr std::int64_t kPanelStride = kBlockChannels * 4;

// Tiles 0 … 3: sums, of the first and second rows of x by the first and second channels. 4, 5: x. 6, 7: weights. Configured
// while it lives.
class Tiles {
 public:
  OCTAVO_AMX_BF16 Tiles() {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, kTileRows, 64);
    tile_memory_fence();
    _tile_loadconfig(&config);
  }
  OCTAVO_AMX_BF16 ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// 32 channels of a chunk of `count` pairs, with a second sixteen rows of x or without.
template <bool kLower>
OCTAVO_AMX_BF16 void multiply(const std::uint32_t* panel, const std::uint32_t* x, std::int64_t count, float* sums) {
  const std::int64_t x_stride = count * 4;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kLower) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t p = 0; p < count; p += kTilePairs) {
    _tile_loadd(6, panel + p * kBlockChannels, kPanelStride);
    _tile_loadd(7, panel + p * kBlockChannels + 16, kPanelStride);
    _tile_loadd(4, x + p, x_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kLower) {
      _tile_loadd(5, x + kTileRows * count + p, x_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kPanelStride);
  _tile_stored(1, sums + 16, kPanelStride);
  if constexpr (kLower) {
    _tile_stored(2, sums + kTileRows * kBlockChannels, kPanelStride);
    _tile_stored(3, sums + kTileRows * kBlockChannels + 16, kPanelStride);
  }
}

template <bool kLower>
OCTAVO_AMX_BF16 void multiply_panel(const std::uint32_t* panel, const std::uint32_t* x, std::int64_t count,
                                    const float* scale, float* total) {
  constexpr std::int64_t kRows = kLower ? 2 * kTileRows : kTileRows;
  alignas(64) float sums[kRows * kBlockChannels];
  tile_memory_fence();
  multiply<kLower>(panel, x, count, sums);
  multiply<kLower>(panel + 32, x, count, sums + 32);
  tile_memory_fence();
  for (std::int64_t j = 0; j < kBlockChannels; j += 16) {
    const __m512 s = _mm512_loadu_ps(scale + j);
    for (std::int64_t at = j; at < kRows * kBlockChannels; at += kBlockChannels) {
      _mm512_storeu_ps(total + at, _mm512_fmadd_ps(_mm512_load_ps(sums + at), s, _mm512_loadu_ps(total + at)));
    }
  }
}

template <class W>
struct Kernel : float_w::KernelOnPairs<W> {
  using State = Tiles;
  static constexpr std::int64_t kAlign = kTilePairs;
  static constexpr std::int64_t kRows = 2 * kTileRows;
  static constexpr std::int64_t kFewRows = 0;
  static constexpr std::int64_t kFewTile = 0;
  static constexpr std::int64_t kChunk = 512;
  static constexpr std::int64_t kPanel = 256;
  static constexpr bool kRowMajor = true;

  static auto product(int rows) { return rows > kTileRows ? multiply_panel<true> : multiply_panel<false>; }
};

}  // namespace

void cpu_bf16_w8_amx(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<float_w::Bf16W8<true>>>(a, parallel)
                            : float_w::run<Kernel<float_w::Bf16W8<false>>>(a, parallel);
}

void cpu_bf16_w4_amx(const Arguments& a, Parallel& parallel) {
  a.packed.format.symmetric ? float_w::run<Kernel<float_w::Bf16W4<true>>>(a, parallel)
                            : float_w::run<Kernel<float_w::Bf16W4<false>>>(a, parallel);
}

}  // namespace octavo

#endif  // __x86_64__
