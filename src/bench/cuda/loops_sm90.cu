// Hopper's tensor cores, by the instructions that reach their peak: two warpgroups of an SM multiply tiles of their own rows
// with a tile that they share, all in shared memory.
#include "bench/cuda/clock.cuh"
#include "core/cuda_launch.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::bench {
namespace {

using namespace sm90;

constexpr int kWarpgroups = 2, kThreads = 128 * kWarpgroups;
constexpr int kRowBytes = 128, kSteps = 4;  // a row of a tile is four instructions long
constexpr int kLoops = 128, kUnrolled = 4;

// d[64 x 128] += a[64 x 16] · b[128 x 16]ᵀ in float32, of 16-bit numbers.
template <Bits kBits>
struct Wgmma16;

#define OCTAVO_TEN(t) "%" t "0, %" t "1, %" t "2, %" t "3, %" t "4, %" t "5, %" t "6, %" t "7, %" t "8, %" t "9, "
#define OCTAVO_D8(i)                                                                                                      \
  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]), "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), \
      "+f"(d[(i) + 7])
#define OCTAVO_WGMMA_16(bits, type)                                                                                         \
  template <>                                                                                                               \
  struct Wgmma16<bits> {                                                                                                    \
    __device__ __forceinline__ static void multiply(float (&d)[64], std::uint64_t a_tile, std::uint64_t b_tile) {           \
      asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" OCTAVO_TEN("") OCTAVO_TEN("1")         \
                       OCTAVO_TEN("2") OCTAVO_TEN("3") OCTAVO_TEN("4")                                                      \
                           OCTAVO_TEN("5") "%60, %61, %62, %63}, %64, %65, 1, 1, 1, 0, 0;"                                  \
                   : OCTAVO_D8(0), OCTAVO_D8(8), OCTAVO_D8(16), OCTAVO_D8(24), OCTAVO_D8(32), OCTAVO_D8(40), OCTAVO_D8(48), \
                     OCTAVO_D8(56)                                                                                          \
                   : "l"(a_tile), "l"(b_tile));                                                                             \
    }                                                                                                                       \
  };
OCTAVO_WGMMA_16(Bits::kFloat16, "f16")
OCTAVO_WGMMA_16(Bits::kBFloat16, "bf16")
#undef OCTAVO_WGMMA_16
#undef OCTAVO_D8
#undef OCTAVO_TEN

// int8 has instructions of 256 columns in sm90.cuh.
template <Bits kBits>
struct Shape {
  using Sum = float;
  static constexpr int kColumns = 128, kK = 16;
  __device__ __forceinline__ static void multiply(Sum (&d)[64], std::uint64_t a, std::uint64_t b) {
    Wgmma16<kBits>::multiply(d, a, b);
  }
};
template <>
struct Shape<Bits::kInt8> {
  using Sum = std::int32_t;
  static constexpr int kColumns = 256, kK = 32;
  __device__ __forceinline__ static void multiply(Sum (&d)[128], std::uint64_t a, std::uint64_t b) {
    Wgmma<256>::multiply(d, a, b, true);
  }
};

template <Bits kBits>
constexpr int kTileRows = 64 * kWarpgroups + Shape<kBits>::kColumns;
template <Bits kBits>
constexpr int kSharedBytes = kTileRows<kBits>* kRowBytes + 1024;  // tiles begin at multiples of 1024

template <Bits kBits>
__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(Clock* clock) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using S = Shape<kBits>;
  extern __shared__ std::uint32_t shared[];
  const std::uint32_t start = (shared_address(shared) + 1023) / 1024 * 1024;
  for (int i = static_cast<int>(threadIdx.x); i < kTileRows<kBits> * kRowBytes / 4; i += kThreads) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(start + 4 * i), "r"(random_operands<kBits>(i)) : "memory");
  }
  fence_for_copy_engine();  // and for wgmma, which reads as it writes
  __syncthreads();
  const std::uint32_t a = start + threadIdx.x / 128 * 64 * kRowBytes;
  const std::uint32_t b = start + 64 * kWarpgroups * kRowBytes;
  typename S::Sum d[S::kColumns / 2] = {};
  const Stopwatch watch;
  for (int loop = 0; loop < kLoops; ++loop) {
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kSteps * kUnrolled; ++step) {
      const std::uint32_t along = step % kSteps * (kRowBytes / kSteps);
      S::multiply(d, tile_descriptor(a + along), tile_descriptor(b + along));
    }
    wgmma_commit();
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  watch.tell(clock);
  typename S::Sum all = 0;
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; ++i) all += d[i];
  if (all == kNever<typename S::Sum>) *clock = {};
#endif
}

template <Bits kBits>
void launch_wgmma(int num_sms, Clock* clock, Stream stream) {
  cuda::launch(wgmma_kernel<kBits>, dim3(static_cast<unsigned>(num_sms)), dim3(kThreads), kSharedBytes<kBits>, stream,
               {.dependent = false}, clock);
}

template <Bits kBits>
constexpr CudaUnit unit(std::string_view name, std::string_view operands) {
  constexpr std::int64_t kOperations =
      std::int64_t{2} * 64 * Shape<kBits>::kColumns * Shape<kBits>::kK * kSteps * kUnrolled * kLoops * kWarpgroups;
  return {name, operands, {9, 0, true}, kOperations, launch_wgmma<kBits>};
}

}  // namespace

namespace wgmma {
const CudaUnit kS8 = unit<Bits::kInt8>("wgmma s8", "int8");
const CudaUnit kF16 = unit<Bits::kFloat16>("wgmma f16", "fp16");
const CudaUnit kBf16 = unit<Bits::kBFloat16>("wgmma bf16", "bf16");
}  // namespace wgmma

}  // namespace octavo::bench
