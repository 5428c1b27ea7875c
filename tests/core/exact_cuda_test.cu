#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include "core/cuda.h"
#include "core/exact.h"

namespace octavo {
namespace {

// How many of 2^23 neighbours from `first` on have another reciprocal than the rounded one.
__global__ void count_wrong(std::uint32_t first, unsigned* wrong) {
  const float a = exact::from_bits(first + blockIdx.x * blockDim.x + threadIdx.x);
  if (exact::reciprocal(a) != __frcp_rn(a)) atomicAdd(wrong, 1u);
}

TEST(CudaExact, ReciprocalOfEverySignificand) {
  if (const Status ready = cuda::ready({DeviceType::kCuda, 0}); !ready.ok()) GTEST_SKIP() << ready.message();
  unsigned* wrong = nullptr;
  ASSERT_EQ(cudaMalloc(&wrong, sizeof(unsigned)), cudaSuccess);
  ASSERT_EQ(cudaMemset(wrong, 0, sizeof(unsigned)), cudaSuccess);
  for (std::uint32_t exponent = 127 - 125; exponent < 127 + 126; ++exponent) {
    count_wrong<<<1 << 13, 1 << 10>>>(exponent << 23, wrong);
  }
  unsigned found = 1;
  ASSERT_EQ(cudaMemcpy(&found, wrong, sizeof(found), cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(found, 0u);
  cudaFree(wrong);
}

}  // namespace
}  // namespace octavo
