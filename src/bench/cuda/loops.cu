#include <algorithm>

#include "bench/cuda/clock.cuh"
#include "bench/cuda/loops.h"
#include "core/cuda_launch.cuh"
#include "core/ptx.cuh"
#include "gemm/cuda/mma.cuh"

namespace octavo::bench {
namespace {

using cuda::launch;

constexpr unsigned kThreads = 256;
constexpr cuda::LaunchOptions kAlone = {.dependent = false};  // writes what others take for constant

unsigned blocks_for(std::int64_t items) {
  return static_cast<unsigned>(std::min<std::int64_t>((items + kThreads - 1) / kThreads, 1 << 16));
}

__global__ void fill_random_kernel(std::uint32_t* data, std::int64_t words, std::uint32_t mask, std::uint32_t add) {
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < words; i += gridDim.x * kThreads) {
    data[i] = __vadd4(random_bits(static_cast<std::uint32_t>(i)) & mask, add);
  }
}

__global__ void fill_words_kernel(std::uint32_t* data, std::int64_t count, std::uint32_t value) {
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += gridDim.x * kThreads) data[i] = value;
}

// --- Memory ---------------------------------------------------------------------------------------------------------------

constexpr unsigned kReadThreads = 512;
constexpr unsigned kReadCtas = 2;  // an SM; as many of the next kernel fit beside them
constexpr int kLoads = 4;          // of a thread at a time

__device__ __forceinline__ uint4 load_once(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

__device__ __forceinline__ void load(uint4 (&v)[kLoads], const uint4* from, std::int64_t first, std::int64_t step,
                                     std::int64_t end) {
#pragma unroll
  for (int j = 0; j < kLoads; ++j) v[j] = first + j * step < end ? load_once(from + first + j * step) : uint4{};
}

// What comes after it may start at once: it writes nothing, and ends only when what is in front of it has.
__global__ void __launch_bounds__(kReadThreads) read_kernel(const uint4* from, std::int64_t end, std::uint32_t* sink) {
  ptx::launch_dependents();
  const std::int64_t step = std::int64_t{gridDim.x} * kReadThreads;
  std::uint32_t all = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kReadThreads + threadIdx.x; i < end; i += kLoads * step) {
    uint4 v[kLoads];
    load(v, from, i, step, end);
#pragma unroll
    for (int j = 0; j < kLoads; ++j) all ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  ptx::wait_for_predecessor();
  if (all == kNever<std::uint32_t>) *sink = all;
}

// A CTA takes kLoads rows of 16 bytes a thread at a time, and writes one of kEvery.
template <int kEvery>
__global__ void __launch_bounds__(kReadThreads) move_kernel(const uint4* from, std::int64_t end, uint4* to) {
  static_assert(kLoads % kEvery == 0);
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  constexpr std::int64_t kTile = kLoads * kReadThreads;
  for (std::int64_t first = blockIdx.x * kTile; first < end; first += gridDim.x * kTile) {
    uint4 v[kLoads];
    load(v, from, first + threadIdx.x, kReadThreads, end);
#pragma unroll
    for (int j = 0; j < kLoads; j += kEvery) {
      uint4 all = v[j];
#pragma unroll
      for (int i = 1; i < kEvery; ++i)
        all = {all.x ^ v[j + i].x, all.y ^ v[j + i].y, all.z ^ v[j + i].z, all.w ^ v[j + i].w};
      const std::int64_t place = (first + j * kReadThreads) / kEvery + threadIdx.x;
      if (place < end / kEvery) to[place] = all;
    }
  }
}

__global__ void nothing_kernel() {
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
}

unsigned read_grid(std::int64_t chunks, int num_sms) {
  const std::int64_t needed = (chunks + kReadThreads * kLoads - 1) / (kReadThreads * kLoads);
  const std::int64_t at_most = (chunks + kReadThreads - 1) / kReadThreads;
  const std::int64_t least = std::clamp<std::int64_t>(at_most, 1, num_sms);
  return static_cast<unsigned>(std::clamp<std::int64_t>(needed, least, std::int64_t{kReadCtas} * num_sms));
}

// --- Multiplying ------------------------------------------------------------------------------------------------------

// Sums of a warp, in registers, and warps of the CTA that an SM has: so many hide the instruction's latency.
constexpr int kSums = 8, kSteps = 1 << 11;
constexpr int kWarps = 16;
constexpr unsigned kUnitThreads = 32 * kWarps;

template <Bits kBits>
struct Mma;

template <>
struct Mma<Bits::kInt8> {
  using Sum = std::int32_t;
  static constexpr int kK = 32;
  __device__ __forceinline__ static void multiply(Sum (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    cuda::multiply_s8(c, a, b[0], b[1]);
  }
};

#define OCTAVO_MMA_16(bits, type)                                                             \
  template <>                                                                                 \
  struct Mma<bits> {                                                                          \
    using Sum = float;                                                                        \
    static constexpr int kK = 16;                                                             \
    __device__ __forceinline__ static void multiply(Sum (&c)[4], const std::uint32_t (&a)[4], \
                                                    const std::uint32_t (&b)[2]) {            \
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                     \
                   ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"     \
                   : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                           \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));       \
    }                                                                                         \
  };
OCTAVO_MMA_16(Bits::kFloat16, "f16")
OCTAVO_MMA_16(Bits::kBFloat16, "bf16")
#undef OCTAVO_MMA_16

template <Bits kBits>
__global__ void __launch_bounds__(kUnitThreads) mma_kernel(Clock* clock) {
#if __CUDA_ARCH__ >= 800
  typename Mma<kBits>::Sum c[kSums][4] = {};
  std::uint32_t a[4], b[kSums][2];
  for (int i = 0; i < 4; ++i) a[i] = random_operands<kBits>(threadIdx.x * 32 + i);
#pragma unroll
  for (int i = 0; i < 2 * kSums; ++i) b[i / 2][i % 2] = random_operands<kBits>(threadIdx.x * 32 + 4 + i);
  const Stopwatch watch;
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) Mma<kBits>::multiply(c[i], a, b[i]);
  }
  watch.tell(clock);
  typename Mma<kBits>::Sum all = 0;
#pragma unroll
  for (int i = 0; i < kSums; ++i) all += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  if (all == kNever<typename Mma<kBits>::Sum>) *clock = {};
#endif
}

template <Bits kBits>
void launch_mma(int num_sms, Clock* clock, Stream stream) {
  launch(mma_kernel<kBits>, dim3(static_cast<unsigned>(num_sms)), dim3(kUnitThreads), 0, stream, kAlone, clock);
}

template <Bits kBits>
constexpr std::int64_t kMmaOperations = std::int64_t{2} * 16 * 8 * Mma<kBits>::kK* kSums* kSteps* kWarps;

__global__ void __launch_bounds__(kUnitThreads) fma_kernel(Clock* clock) {
  float sum[kSums] = {};
  const float a = __uint_as_float(random_bits(threadIdx.x) >> 9 | 0x3f800000u);
  const Stopwatch watch;
  for (int step = 0; step < kSteps * 4; ++step) {
#pragma unroll
    for (float& s : sum) asm volatile("fma.rn.f32 %0, %1, %1, %0;" : "+f"(s) : "f"(a));
  }
  watch.tell(clock);
  float all = 0;
#pragma unroll
  for (const float s : sum) all += s;
  if (all == kNever<float>) *clock = {};
}

void launch_fma(int num_sms, Clock* clock, Stream stream) {
  launch(fma_kernel, dim3(static_cast<unsigned>(num_sms)), dim3(kUnitThreads), 0, stream, kAlone, clock);
}

}  // namespace

void fill_random(std::byte* data, std::int64_t bytes, RandomIntegers integers, Stream stream) {
  const std::int64_t words = bytes / 4;
  launch(fill_random_kernel, dim3(blocks_for(words)), dim3(kThreads), 0, stream, kAlone,
         reinterpret_cast<std::uint32_t*>(data), words, integers.mask * 0x01010101u, integers.add * 0x01010101u);
}

void fill_words(std::byte* data, std::int64_t count, std::uint32_t value, Stream stream) {
  launch(fill_words_kernel, dim3(blocks_for(count)), dim3(kThreads), 0, stream, kAlone,
         reinterpret_cast<std::uint32_t*>(data), count, value);
}

void read_all(const std::byte* data, std::int64_t bytes, int num_sms, std::uint32_t* sink, Stream stream) {
  const std::int64_t chunks = bytes / 16;
  launch(read_kernel, dim3(read_grid(chunks, num_sms)), dim3(kReadThreads), 0, stream, {},
         reinterpret_cast<const uint4*>(data), chunks, sink);
}

void read_and_write(const std::byte* from, std::int64_t bytes, int every, std::byte* to, Stream stream) {
  const std::int64_t chunks = bytes / 16;
  const std::int64_t tiles = (chunks + kLoads * kReadThreads - 1) / (kLoads * kReadThreads);
  launch(every == 2 ? move_kernel<2> : move_kernel<4>,
         dim3(static_cast<unsigned>(std::clamp<std::int64_t>(tiles, 1, 1 << 20))), dim3(kReadThreads), 0, stream, {},
         reinterpret_cast<const uint4*>(from), chunks, reinterpret_cast<uint4*>(to));
}

void launch_nothing(int num_sms, Stream stream) {
  launch(nothing_kernel, dim3(static_cast<unsigned>(num_sms)), dim3(kThreads), 0, stream, {});
}

std::span<const CudaUnit> cuda_units() {
  static const CudaUnit units[] = {
      wgmma::kS8,
      {"mma.sync s8", "int8", {8, 0}, kMmaOperations<Bits::kInt8>, launch_mma<Bits::kInt8>},
      wgmma::kF16,
      {"mma.sync f16", "fp16", {8, 0}, kMmaOperations<Bits::kFloat16>, launch_mma<Bits::kFloat16>},
      wgmma::kBf16,
      {"mma.sync bf16", "bf16", {8, 0}, kMmaOperations<Bits::kBFloat16>, launch_mma<Bits::kBFloat16>},
      {"fma f32", "fp32", {}, std::int64_t{2} * kSums * kSteps * 4 * kUnitThreads, launch_fma},
  };
  return units;
}

}  // namespace octavo::bench
