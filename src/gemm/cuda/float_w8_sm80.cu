#include "gemm/cuda/float_w_sm80_launch.cuh"

namespace octavo {

void cuda_float_w8_sm80(const Arguments& a, Parallel& /*parallel*/) { sm80::launch_float_w<8>(a); }

}  // namespace octavo
