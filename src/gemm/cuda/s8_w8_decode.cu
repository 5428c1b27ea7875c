#include "gemm/cuda/decode_launch.cuh"
#include "gemm/cuda/s8_w8_decode.h"

namespace octavo {

bool s8_w8_decode_fits(std::int64_t M, std::int64_t K) { return decode::fits<std::int8_t, 8>(M, K, {}); }

void cuda_s8_w8_decode(const Arguments& a, Parallel& /*parallel*/) { decode::launch<std::int8_t, 8>(a); }

}  // namespace octavo
