#include "gemm/cuda/tensor_map.h"

#include <cuda_runtime.h>

#include "core/cuda.h"

namespace octavo::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function by way of the runtime, so that nothing is linked to the driver's library.
Encode encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
  note_error(error);
  return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(function) : nullptr;
}

}  // namespace

bool map_tensor(const void* data, int element_bytes, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                const Box& box, CUtensorMap& map) {
  static const Encode encode = encode_function();
  if (encode == nullptr) {
    note_error(cudaErrorNotSupported);
    return false;
  }
  if (rows == 1) stride = (columns * element_bytes + 15) / 16 * 16;  // no row follows
  const CUtensorMapDataType type = element_bytes == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                   : element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                                                        : CU_TENSOR_MAP_DATA_TYPE_UINT32;
  const CUtensorMapSwizzle swizzle = box.swizzle == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : box.swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                         : CU_TENSOR_MAP_SWIZZLE_32B;
  // Boxes side by side are a third dimension, of columns by box.columns.
  const bool folded = box.side_by_side > 1;
  const auto width = static_cast<cuuint64_t>(box.columns), all = static_cast<cuuint64_t>(columns);
  const cuuint64_t sizes[] = {folded ? width : all, static_cast<cuuint64_t>(rows), all / width};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride), width * element_bytes};
  const cuuint32_t boxes[] = {static_cast<cuuint32_t>(box.columns), static_cast<cuuint32_t>(box.rows),
                              static_cast<cuuint32_t>(box.side_by_side)};
  const cuuint32_t steps[] = {1, 1, 1};
  const CUtensorMapL2promotion promotion =
      box.line == 256 ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
  const auto result_of_encoding = [&] {
    return encode(&map, type, folded ? 3 : 2, const_cast<void*>(data), sizes, strides, boxes, steps,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  CUresult result = result_of_encoding();
  if (result == CUDA_ERROR_INVALID_CONTEXT) {  // a thread that has not called the runtime yet has none
    cudaFree(nullptr);
    result = result_of_encoding();
  }
  if (result != CUDA_SUCCESS) note_error(cudaErrorInvalidValue);
  return result == CUDA_SUCCESS;
}

}  // namespace octavo::cuda
