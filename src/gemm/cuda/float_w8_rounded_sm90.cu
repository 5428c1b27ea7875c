#include "gemm/cuda/float_w_sm90_launch.cuh"

namespace octavo {

void cuda_float_w8_rounded_sm90(const Arguments& a, Parallel& /*parallel*/) {
  const sm90::FloatWArguments s = sm90::float_w_arguments(a);
  const sm90::FloatWTile tile = sm90::choose_rounded(a, s);
  if (a.w.q.dtype == DType::kInt8) return sm90::launch_rounded<sm90::Storage::kInt8>(a, s, tile);
  sm90::launch_rounded<sm90::Storage::kUInt8>(a, s, tile);
}

}  // namespace octavo
