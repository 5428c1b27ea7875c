#include "gemm/cuda/decode_launch.cuh"
#include "gemm/cuda/float_w_decode.h"

namespace octavo {

bool float_w4_decode_fits(std::int64_t M, std::int64_t K, const WeightFormat& format) {
  return decode::fits<__half, 4>(M, K, format);
}

void cuda_float_w4_decode(const Arguments& a, Parallel& /*parallel*/) {
  if (a.x.dtype == DType::kFloat16) return decode::launch<__half, 4>(a);
  decode::launch<__nv_bfloat16, 4>(a);
}

}  // namespace octavo
