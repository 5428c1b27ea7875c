// Where operators on CUDA tensors put their work.
#pragma once

#include "octavo/tensor.h"

namespace octavo::torch_ops {

// Torch's current stream of a CUDA device. In builds with CUDA only.
Stream stream_on(const Device& device);

}  // namespace octavo::torch_ops
