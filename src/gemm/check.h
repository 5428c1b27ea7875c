// Whether the arguments of a product fit together: one clear error before any kernel runs.
#pragma once

#include "gemm/arguments.h"

namespace octavo {

Status check_linear(const Arguments& a);
Status check_scaled_mm(const Arguments& a);
Status check_matmul(const Arguments& a);  // scaled_mm with alpha for scales
Status check_linear_w8a8(const Arguments& a);
Status check_linear_w4a8(const Arguments& a);
Status check_linear_llm_int8(const Arguments& a);

}  // namespace octavo
