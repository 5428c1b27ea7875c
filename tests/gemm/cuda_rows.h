// The CUDA rows of the kernel table that this machine can run.
#pragma once

#include <iostream>
#include <vector>

#include "gemm/kernels.h"

namespace octavo::test {

// Those of an operation; of the others it says why not.
inline std::vector<const Kernel*> usable_cuda_rows(Op op) {
  std::vector<const Kernel*> rows;
  for (const Kernel& kernel : kernel_table()) {
    if (kernel.device != DeviceType::kCuda || kernel.op != op) continue;
    if (const Status usable = kernel.usable(); usable.ok()) {
      rows.push_back(&kernel);
    } else {
      std::cout << kernel.name << ": " << usable.message() << '\n';
    }
  }
  return rows;
}

}  // namespace octavo::test
