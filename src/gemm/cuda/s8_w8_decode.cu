#include "gemm/cuda/decode_launch.cuh"
#include "gemm/cuda/s8_w8_decode.h"

namespace octavo {

bool s8_w8_decode_fits(std::int64_t M, std::int64_t K) { return decode::fits<std::int8_t, 8>(M, K, {}); }

void cuda_s8_w8_decode(const Arguments& a, Parallel& /*parallel*/) { decode::launch<std::int8_t, 8>(a); }

bool w8a8_decode_fits(std::int64_t M, std::int64_t K) {
  return K % 8 == 0 && M * K <= decode::kMostToQuantize && s8_w8_decode_fits(M, K);
}

void cuda_w8a8_decode(const Arguments& a, Parallel& /*parallel*/) {
  if (a.x.dtype == DType::kFloat16) return decode::launch<std::int8_t, 8, __half>(a);
  decode::launch<std::int8_t, 8, __nv_bfloat16>(a);
}

}  // namespace octavo
