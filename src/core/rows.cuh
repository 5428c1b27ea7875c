// A matrix as kernels see it.
#pragma once

#include <cstdint>
#include <type_traits>

namespace octavo::cuda {

template <class T>
struct Rows {
  T* data;
  std::int64_t stride;  // bytes

  __device__ __forceinline__ T* operator()(std::int64_t row) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(data) + row * stride);
  }
};

template <class T, class View>
Rows<T> rows_of(const View& view) {
  return {static_cast<T*>(view.data), view.stride};
}

// Blocks of `threads` for n pieces of work, one a thread.
inline unsigned blocks_for(std::int64_t n, int threads) { return static_cast<unsigned>((n + threads - 1) / threads); }

}  // namespace octavo::cuda
