#include "gemm/cuda/float_w_sm90_launch.cuh"

namespace octavo {

void cuda_float_w4_rounded_sm90(const Arguments& a, Parallel& /*parallel*/) {
  const sm90::FloatWArguments s = sm90::float_w_arguments(a);
  sm90::launch_rounded<sm90::Storage::kNibbles>(a, s, sm90::choose_rounded(a, s));
}

}  // namespace octavo
