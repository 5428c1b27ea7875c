// For a build without CUDA.
#include "bench/on_cuda.h"
#include "core/cuda.h"

namespace octavo::bench {

Status measure_on_cuda(const Options& /*options*/, FunctionRef<void(const Row&)> /*done*/) { return cuda::usable(); }

Result<std::vector<Roof>> measure_roofs_on_cuda() { return cuda::usable(); }

}  // namespace octavo::bench
