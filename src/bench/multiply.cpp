// Multiply peaks: loops of one instruction over registers, as many independent sums as hide its latency.
#include <atomic>
#include <cstring>

#include "bench/roofs.h"
#include "bench/timing.h"
#include "core/amx.h"
#include "core/cpu_features.h"
#include "core/simd.h"

namespace octavo::bench {
namespace {

constexpr std::int64_t kItemsPerThread = 16;

// Where loops leave what they computed, so that they cannot be left out.
std::atomic<int> sink;

constexpr std::int64_t kScalarSteps = 1 << 16;
constexpr int kScalarSums = 8;

template <class T>
void scalar_loop() {
  volatile T source = 1;
  T sum[kScalarSums];
  for (T& s : sum) s = source;
  T x = source;
  for (std::int64_t i = 0; i < kScalarSteps; ++i) {
    for (T& s : sum) s = static_cast<T>(s + x * x);
    x = source;
  }
  for (const T s : sum) sink = static_cast<int>(static_cast<std::int64_t>(s) & 1);
}

bool anywhere() { return true; }

#if defined(__x86_64__)

constexpr std::int64_t kSteps = 1 << 15;
constexpr int kSums = 12;

// A loop named NAME whose steps run INSTRUCTIONS for each of kSums registers of sums, \sum. Register 15 holds the operands,
// 14 is free. In assembly, so that exactly these run: a compiler sees that the sums are all alike, and moves them about.
#define OCTAVO_MULTIPLY_LOOP(NAME, REGISTER, INSTRUCTIONS)                                                            \
  void NAME() {                                                                                                       \
    const float operand = 0.5f; /* as bytes and words, neither zero nor special */                                    \
    std::int64_t steps = kSteps;                                                                                      \
    __asm__ volatile("vbroadcastss %1, %%" REGISTER                                                                   \
                     "15\n"                                                                                           \
                     ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n"                                               \
                     "vpxor %%xmm\\sum, %%xmm\\sum, %%xmm\\sum\n"                                                     \
                     ".endr\n"                                                                                        \
                     "1:\n"                                                                                           \
                     ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n" INSTRUCTIONS                                  \
                     "\n"                                                                                             \
                     ".endr\n"                                                                                        \
                     "dec %0\n"                                                                                       \
                     "jnz 1b\n"                                                                                       \
                     "vzeroupper\n"                                                                                   \
                     : "+r"(steps)                                                                                    \
                     : "m"(operand)                                                                                   \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                       "xmm11", "xmm14", "xmm15");                                                                    \
  }

OCTAVO_MULTIPLY_LOOP(fma_ymm, "ymm", "vfmadd231ps %%ymm15, %%ymm15, %%ymm\\sum")
OCTAVO_MULTIPLY_LOOP(fma_zmm, "zmm", "vfmadd231ps %%zmm15, %%zmm15, %%zmm\\sum")
// Two instructions: the exact way to multiply bytes without VNNI, once they are widened.
OCTAVO_MULTIPLY_LOOP(madd_ymm, "ymm", "vpmaddwd %%ymm15, %%ymm15, %%ymm14\nvpaddd %%ymm14, %%ymm\\sum, %%ymm\\sum")
OCTAVO_MULTIPLY_LOOP(vnni_ymm, "ymm", "%{vex%} vpdpbusd %%ymm15, %%ymm15, %%ymm\\sum")
OCTAVO_MULTIPLY_LOOP(vnni_zmm, "zmm", "vpdpbusd %%zmm15, %%zmm15, %%zmm\\sum")
OCTAVO_MULTIPLY_LOOP(bf16_zmm, "zmm", "vdpbf16ps %%zmm15, %%zmm15, %%zmm\\sum")

// Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 of w, as in a product.
constexpr std::int64_t kTileSteps = 1 << 13;
constexpr double kTileBytes = 16.0 * 64;

TileConfig full_tiles() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.set(tile, 16, 64);
  return config;
}

#define OCTAVO_TILE_LOOP(NAME, TARGET, MULTIPLY)                   \
  TARGET void NAME() {                                             \
    static const TileConfig config = full_tiles();                 \
    alignas(64) static constexpr std::uint8_t kZero[64 * 16] = {}; \
    _tile_loadconfig(&config);                                     \
    _tile_zero(0);                                                 \
    _tile_zero(1);                                                 \
    _tile_zero(2);                                                 \
    _tile_zero(3);                                                 \
    _tile_loadd(4, kZero, 64);                                     \
    _tile_loadd(5, kZero, 64);                                     \
    _tile_loadd(6, kZero, 64);                                     \
    _tile_loadd(7, kZero, 64);                                     \
    for (std::int64_t step = 0; step < kTileSteps; ++step) {       \
      MULTIPLY(0, 4, 6);                                           \
      MULTIPLY(1, 4, 7);                                           \
      MULTIPLY(2, 5, 6);                                           \
      MULTIPLY(3, 5, 7);                                           \
    }                                                              \
    _tile_release();                                               \
  }

OCTAVO_TILE_LOOP(amx_int8, OCTAVO_AMX_INT8, _tile_dpbusd)
OCTAVO_TILE_LOOP(amx_bf16, OCTAVO_AMX_BF16, _tile_dpbf16ps)

constexpr double operations(double per_instruction) { return per_instruction * kSums * static_cast<double>(kSteps); }
// A tile instruction multiplies 16 rows of 64 bytes by 16 columns.
constexpr double tile_operations(double bytes_per_element) {
  return 2 * 16 * kTileBytes / bytes_per_element * 4 * static_cast<double>(kTileSteps);
}

#endif  // __x86_64__

const Unit kUnits[] = {
#if defined(__x86_64__)
    {"tdpbusd", "int8", [] { return cpu_features().amx_int8 && amx_permitted(); }, tile_operations(1), amx_int8},
    {"vpdpbusd zmm", "int8", [] { return cpu_features().avx512_vnni; }, operations(128), vnni_zmm},
    {"vpdpbusd ymm", "int8", [] { return cpu_features().avx_vnni; }, operations(64), vnni_ymm},
    {"vpmaddwd ymm", "int8", [] { return cpu_features().avx2; }, operations(32), madd_ymm},
    {"tdpbf16ps", "bf16", [] { return cpu_features().amx_bf16 && amx_permitted(); }, tile_operations(2), amx_bf16},
    {"vdpbf16ps zmm", "bf16", [] { return cpu_features().avx512_bf16; }, operations(64), bf16_zmm},
    {"vfmadd zmm", "fp32", [] { return cpu_features().avx512; }, operations(32), fma_zmm},
    {"vfmadd ymm", "fp32", [] { return cpu_features().avx2; }, operations(16), fma_ymm},
#endif
    {"scalar int32", "int8", anywhere, 2.0 * kScalarSums* kScalarSteps, scalar_loop<std::int32_t>},
    {"scalar fp32", "fp32", anywhere, 2.0 * kScalarSums* kScalarSteps, scalar_loop<float>},
};

}  // namespace

std::span<const Unit> units() { return kUnits; }

const Unit& best_unit(std::string_view operands) {
  for (const Unit& unit : kUnits) {
    if (unit.operands == operands && unit.usable()) return unit;
  }
  return best_unit("fp32");
}

double multiply_rate(const Unit& unit, Parallel& parallel) {
  const std::int64_t items = kItemsPerThread * parallel.num_threads();
  const double seconds = seconds_of([&] {
    parallel.run(0, items, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) unit.loop();
    });
  });
  return unit.operations * static_cast<double>(items) / seconds;
}

}  // namespace octavo::bench
