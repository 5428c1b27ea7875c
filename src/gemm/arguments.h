// What a kernel is called with. Checked before: a kernel may rely on every shape, dtype and device being right.
#pragma once

#include "octavo/gemm.h"

namespace octavo {

struct Arguments {
  MatrixView x;         // [M, K]
  MatrixView x_scale;   // [M, 1] or [1, 1] float32; scaled_mm only
  QuantizedWeight w;    // [N, K]; scaled_mm takes per channel or per tensor. Of a packed one: format and shape
  MatrixView bias;      // [1, N], or empty
  MutableMatrixView y;  // [M, N]
  float threshold = 0;  // linear_llm_int8 only
  OutlierRule rule = OutlierRule::kToken;
  PackedWeight packed = {};  // for kernels that read a packed layout; without data where the weight is row-major
  Stream stream = {};        // where a CUDA kernel is launched
  float alpha = 1;           // on CUDA in place of w.scale, where that has no data; x_scale then counts as 1 if it has none
  bool constant_w = false;   // the kernels in front of this one on the stream do not write w: it may be read before they end
  bool small_kernel_next = false;  // the next kernel is small, such as silu(gate) · up; behind it stands a product
};

}  // namespace octavo
