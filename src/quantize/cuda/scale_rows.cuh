// Scales of a weight as kernels find them: float32, or 16 bits of a type that is known only when they run.
#pragma once

#include <cstdint>

#include "core/half.cuh"

namespace octavo::cuda {

struct ScaleRows {
  const std::uint8_t* data;
  std::int64_t stride;  // bytes
  DType type;

  __host__ __device__ bool has_16_bits() const { return type != DType::kFloat32; }
  // Where that of a row's group is.
  __device__ __forceinline__ const std::uint8_t* place(std::int64_t row, std::int64_t group) const {
    return data + row * stride + group * (has_16_bits() ? 2 : 4);
  }
  __device__ __forceinline__ float at(std::int64_t row, std::int64_t group) const {
    const std::uint8_t* p = place(row, group);
    if (!has_16_bits()) return __ldg(reinterpret_cast<const float*>(p));
    const unsigned bits = __ldg(reinterpret_cast<const unsigned short*>(p));
    return type == DType::kFloat16 ? Element<__half>::value(bits) : Element<__nv_bfloat16>::value(bits);
  }
};

template <class View>
ScaleRows scales_of(const View& view) {
  return {static_cast<const std::uint8_t*>(view.data), view.stride, view.dtype};
}

}  // namespace octavo::cuda
