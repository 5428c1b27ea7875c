// What becomes of a row that stands in front of a product: int8 with a scale for the row, or its type's nearest numbers.
// write() takes a thread's pieces as Row::compute() left them (fused_rows.cuh), write_elements() rows of any length and
// address.
#pragma once

#include "quantize/cuda/fused_rows.cuh"

namespace octavo::fused {

__device__ inline unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// Calls body(k) for the elements of a thread's pieces. Threads keep to them, so that they read what they have written
// themselves.
template <class Body>
__device__ void each_element(std::int64_t K, const Body& body) {
  for (std::int64_t first = threadIdx.x * kPiece; first < K; first += blockDim.x * kPiece) {
    for (std::int64_t k = first; k < min(first + kPiece, K); ++k) body(k);
  }
}

struct Quantized {
  static constexpr bool kWhole = true;  // a block must have all of a row
  // Whether the next kernel starts before this one waits. In a row of quantizations of 16 rows that took 17 % more time.
  static constexpr bool kEarly = false;
  static constexpr int kAlignment = kPiece;
  Rows<std::int8_t> q;
  Rows<float> scale;

  // The reciprocal of the row's scale, which thread 0 stores; 0 if the row is not finite.
  __device__ float reciprocal_of_scale(std::int64_t m, unsigned largest) const {
    largest = cuda::largest_of_block(largest);
    const bool finite = largest < Element<float>::kInfinity;
    const float s = finite ? cuda::activation_scale(__uint_as_float(largest)) : 1.0f;
    if (threadIdx.x == 0) *scale(m) = finite ? s : __uint_as_float(cuda::kNaN);
    return finite ? exact::div(1.0f, s) : 0.0f;
  }

  template <int kPieces>
  __device__ void write(const float (&y)[kPieces][kPiece], std::int64_t m, int first, int pieces) const {
    unsigned largest = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) largest = max(largest, magnitude(y[i][e]));
    }
    const float reciprocal = reciprocal_of_scale(m, largest);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int index = first + i * static_cast<int>(blockDim.x);
      if (index >= pieces) break;
      const auto four = [&](int e) {
        const auto at = [&](int k) { return formulas::quantized(y[i][k], reciprocal); };
        return cuda::lowest_bytes(at(e), at(e + 1), at(e + 2), at(e + 3));
      };
      reinterpret_cast<uint2*>(q(m))[index] = reciprocal != 0 ? uint2{four(0), four(4)} : uint2{};
    }
  }

  template <class Row>
  __device__ void write_elements(const Row& row, std::int64_t m, std::int64_t K) const {
    unsigned largest = 0;
    each_element(K, [&](std::int64_t k) { largest = max(largest, magnitude(row.at(m, k))); });
    const float reciprocal = reciprocal_of_scale(m, largest);
    each_element(K, [&](std::int64_t k) {
      q(m)[k] = reciprocal != 0 ? static_cast<std::int8_t>(formulas::quantized(row.at(m, k), reciprocal)) : std::int8_t{0};
    });
  }
};

template <class T>
struct Rounded {
  static constexpr bool kWhole = false, kEarly = true;
  static constexpr int kAlignment = 16;
  Rows<T> y;

  template <int kPieces>
  __device__ void write(const float (&values)[kPieces][kPiece], std::int64_t m, int first, int pieces) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int index = first + i * static_cast<int>(blockDim.x);
      if (index < pieces) Piece<T>::rounded(values[i]).store(y(m), index);
    }
  }

  template <class Row>
  __device__ void write_elements(const Row& row, std::int64_t m, std::int64_t K) const {
    each_element(K, [&](std::int64_t k) { y(m)[k] = cuda::round_to<T>(row.at(m, k)); });
  }
};

}  // namespace octavo::fused
