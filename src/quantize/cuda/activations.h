// quantize_per_token() and quantize_static() on the GPU.
#pragma once

#include <cstdint>

#include "octavo/quantize.h"

namespace octavo {

// Who reads q: somebody, perhaps as a weight, or only the kernel behind, as activations, which may then start at once
// (core/ptx.cuh).
enum class ReadBy : std::uint8_t { kAnyone, kNextKernel };

// Checked arguments, not empty, on the current device; errors are noted (core/cuda.h).
void cuda_quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                             const MutableMatrixView& scale, Stream stream, ReadBy read_by = ReadBy::kAnyone);
void cuda_quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Stream stream,
                          ReadBy read_by = ReadBy::kAnyone);

}  // namespace octavo
