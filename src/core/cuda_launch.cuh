// Launching kernels, with what every one of them needs: programmatic dependent launch, clusters, much shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "core/cuda.h"
#include "octavo/tensor.h"

namespace octavo::cuda {

struct LaunchOptions {
  dim3 cluster = {1, 1, 1};
  // Programmatic dependent launch (CUDA programming guide, "programmatic dependent launch and synchronization"): the kernel
  // may start before the one in front of it on the stream has ended. It must follow the rules in core/ptx.cuh. Kernels that
  // write what others take for constant (weights) are launched with false.
  bool dependent = true;
};

// Launches kernel(arguments...) on the current device. An error is noted, see take_error().
//
// All kernels ask for as much shared memory as there is, and little first-level cache, whatever they use of it: a
// multiprocessor changes the division between the two when it is idle, so that kernels which are given different ones cannot
// run beside each other. (Left to the driver, a 4-bit 4096 x 14336 behind 28672 x 4096 began 10 µs late on an H100.)
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream stream,
            const LaunchOptions& options, Arguments&&... arguments) {
  if (const int error = allow_shared_memory(reinterpret_cast<const void*>(kernel), shared_bytes); error != cudaSuccess) {
    return note_error(error);
  }
  cudaLaunchAttribute attributes[3];
  unsigned count = 0;
  attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[count++].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  if (options.dependent) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (options.cluster.x * options.cluster.y * options.cluster.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = options.cluster.x;
    attributes[count].val.clusterDim.y = options.cluster.y;
    attributes[count++].val.clusterDim.z = options.cluster.z;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream.handle);
  config.attrs = attributes;
  config.numAttrs = count;
  note_error(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

}  // namespace octavo::cuda
