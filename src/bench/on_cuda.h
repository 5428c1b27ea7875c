// Products on a GPU, timed as measure.h does on the CPU: replays of CUDA graphs, on cold weights, in turns with kernels that
// only read as many bytes, only multiply, or do nothing.
#pragma once

#include <vector>

#include "bench/measure.h"
#include "bench/roofs.h"

namespace octavo::bench {

// On the first GPU. Calls `done` after every row; fails where no kernel can run at all.
//
// A row is an operation on a kernel, with its weight constant (Arguments::constant_w). W8A8 has several: quantize_per_token
// alone, scaled_mm alone, and linear_w8a8, which is both.
Status measure_on_cuda(const Options& options, FunctionRef<void(const Row&)> done);

// Reading memory, launching, and every multiply unit of the GPU.
Result<std::vector<Roof>> measure_roofs_on_cuda();

}  // namespace octavo::bench
