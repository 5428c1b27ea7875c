// The specification of the products in code: what every kernel must compute. Plain loops, no tricks.
#pragma once

#include "gemm/arguments.h"

namespace octavo::reference {

void linear(const Arguments& a, Parallel& parallel);
void scaled_mm(const Arguments& a, Parallel& parallel);
void linear_w4a8(const Arguments& a, Parallel& parallel);
void linear_llm_int8(const Arguments& a, Parallel& parallel);

}  // namespace octavo::reference
