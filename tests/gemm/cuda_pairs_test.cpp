// Few tokens of much x, which the decode kernel copies once for two CTAs (gemm/cuda/decode_pairs.cuh): where x takes more
// than half of a multiprocessor's shared memory, or CTAs have many blocks, and there is an even number of them.
#include "cuda_linear.h"

namespace octavo {
namespace {

using test::CudaLinear;
using test::kGpu;

// One piece of x and several, pieces that end within a block or within sixteen bytes, whole ones, tiles of fewer blocks than
// there are warps, one token and many; and an odd number of CTAs, which no pairs are.
TEST_F(CudaLinear, FewTokensInPairs) {
  struct Shape {
    std::int64_t M, N, K;
    std::int64_t x_gap = 0, w_gap = 0;
  };
  const std::int64_t all = 16 * (*cuda::gpu(kGpu))->num_sms;  // a tile for each multiprocessor
  const Shape shapes[] = {
      {16, 32, 4096},         {16, 24, 4100, 4, 12},   {9, 17, 6657, 7, 15},
      {8, 32, 8192},          {8, 40, 8192},  // three CTAs
      {5, 64, 12000},         {3, 30, 20001, 7, 15},   {2, 32, 32776, 0, 8},
      {1, 32, 65529, 7, 7},   {16, all - 5, 4096},     {8, all + 16, 7168},
      {4, 5 * all - 8, 3600}, {16, 2 * all - 8, 2048}, {9, 10 * all - 8, 1600},
  };
  int turn = 0;
  for (const Shape& shape : shapes) {
    test::LinearCase c;
    c.bits = 8;
    c.M = shape.M;
    c.N = shape.N;
    c.K = shape.K;
    c.group = turn % 4 == 0 ? kPerTensor : kPerChannel;
    c.x = turn % 2 == 0 ? DType::kFloat16 : DType::kBFloat16;
    c.x_gap = shape.x_gap;
    c.w_gap = shape.w_gap;
    ++turn;
    check_by_turns(c);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace octavo
