#include "gemm/cuda/float_w_sm80_launch.cuh"

namespace octavo {

void cuda_float_w4_sm80(const Arguments& a, Parallel& /*parallel*/) { sm80::launch_float_w<4>(a); }

}  // namespace octavo
