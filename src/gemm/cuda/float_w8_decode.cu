#include "gemm/cuda/decode_launch.cuh"
#include "gemm/cuda/float_w8_decode.h"

namespace octavo {

bool float_w8_decode_fits(std::int64_t M, std::int64_t K) { return decode::fits<__half>(M, K); }

void cuda_float_w8_decode(const Arguments& a, Parallel& /*parallel*/) {
  if (a.x.dtype == DType::kFloat16) return decode::launch<__half>(a);
  decode::launch<__nv_bfloat16>(a);
}

}  // namespace octavo
