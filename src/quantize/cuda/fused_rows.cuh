// What stands in front of a product: rows of RMSNorm and of SiLU · up, as the kernels of fused.cu compute them. What stands
// in a row is computed from pieces of kPiece neighbours, thread t those of number t, t + T, t + 2T …, T a power of two, as
// the order of a sum of squares wants it (quantize/formulas.h).
#pragma once

#include "core/half.cuh"
#include "core/rows.cuh"
#include "quantize/cuda/rounding.cuh"
#include "quantize/formulas.h"

namespace octavo::fused {

using cuda::Element;
using cuda::Rows;
using formulas::kPiece;

constexpr int kMaxThreads = 512;

// --- Pieces -------------------------------------------------------------------------------------------------------------

// As it lies in memory.
template <class T>
struct Piece {
  static constexpr int kVectors = kPiece * sizeof(T) / 16;
  uint4 v[kVectors];

  __device__ static Piece load(const T* row, int index) {
    Piece p;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) p.v[i] = reinterpret_cast<const uint4*>(row)[index * kVectors + i];
    return p;
  }
  __device__ static Piece rounded(const float (&x)[kPiece]) {
    Piece p;
    auto* out = reinterpret_cast<T*>(p.v);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) out[i] = cuda::round_to<T>(x[i]);
    return p;
  }
  __device__ void store(T* row, int index) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) reinterpret_cast<uint4*>(row)[index * kVectors + i] = v[i];
  }

  __device__ void widen(float (&x)[kPiece]) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const unsigned words[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 4) {
          x[i * 4 + w] = Element<T>::value(words[w]);
        } else {
          x[2 * w] = Element<T>::value(words[w] & 0xffff);
          x[2 * w + 1] = Element<T>::value(words[w] >> 16);
        }
      }
    }
  }
};

// Rounded sums of two pieces.
template <class T>
__device__ Piece<T> add(const Piece<T>& a, const Piece<T>& b) {
  float x[kPiece], y[kPiece];
  a.widen(x);
  b.widen(y);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) x[i] = exact::add(x[i], y[i]);
  return Piece<T>::rounded(x);
}

// s[0] + s[kCount / 2], and so on: halves to halves, until one is left.
template <int kCount>
__device__ float sum_of_halves(float (&s)[kCount]) {
  if constexpr (kCount == 1) {
    return s[0];
  } else {
    float sums[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) sums[i] = exact::add(s[i], s[i + kCount / 2]);
    return sum_of_halves(sums);
  }
}

template <int kWarps>
__device__ float sum_over_warps(const float* of_thread) {
  float s[kWarps];
#pragma unroll
  for (int w = 0; w < kWarps; ++w) s[w] = of_thread[w * 32 + threadIdx.x % 32];
  return sum_of_halves(s);
}

// Of all threads' values, thread by thread in the order of formulas.h, for all of them.
__device__ inline float sum_of_block(float mine) {
  __shared__ float of_thread[kMaxThreads];
  of_thread[threadIdx.x] = mine;
  __syncthreads();
  float sum;
  switch (blockDim.x / 32) {
    case 1:
      sum = sum_over_warps<1>(of_thread);
      break;
    case 2:
      sum = sum_over_warps<2>(of_thread);
      break;
    case 4:
      sum = sum_over_warps<4>(of_thread);
      break;
    case 8:
      sum = sum_over_warps<8>(of_thread);
      break;
    default:
      sum = sum_over_warps<kMaxThreads / 32>(of_thread);
  }
  for (int half = 16; half > 0; half /= 2) sum = exact::add(sum, __shfl_xor_sync(~0u, sum, half));
  return sum;
}

// --- What a row is ------------------------------------------------------------------------------------------------------

// x, or x + residual, normalized. After prepare() a thread may ask for its elements.
template <class T, bool kAdd>
struct RmsNorm {
  // kWhole: a block must have all of a row. kTwoEachOfMany: up to how many pieces a thread has two, where there are many
  // rows.
  static constexpr bool kWhole = true;
  static constexpr int kBytes = sizeof(T), kTwoEachOfMany = 0;
  Rows<const T> x, residual;
  Rows<T> sum;
  const T* weight;
  float reciprocal_of_K, eps;

  // y of the thread's pieces, number first, first + blockDim.x, …; what lies beyond `pieces` is 0.
  template <int kPieces>
  __device__ void compute(float (&y)[kPieces][kPiece], std::int64_t m, int first, int pieces) const {
    constexpr bool kEarly = sizeof(T) == 2;  // weights wait in registers, of which float32 leaves too few
    Piece<T> in[kPieces] = {}, w[kPieces];
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int index = first + i * static_cast<int>(blockDim.x);
        if (index < pieces) body(i, index);
      }
    };
    each([&](int i, int index) { in[i] = Piece<T>::load(x(m), index); });
    const auto load_weights = [&] { each([&](int i, int index) { w[i] = Piece<T>::load(weight, index); }); };
    if constexpr (kAdd) {
      Piece<T> other[kPieces];
      each([&](int i, int index) { other[i] = Piece<T>::load(residual(m), index); });
      if constexpr (kEarly) load_weights();
      each([&](int i, int index) { (in[i] = add(in[i], other[i])).store(sum(m), index); });
    } else if constexpr (kEarly) {
      load_weights();
    }
    float squares[kPieces];
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      in[i].widen(y[i]);
      squares[i] = formulas::sum_of_squares(y[i]);
    }
    const float factor = formulas::rms_factor(sum_of_block(sum_of_halves(squares)), reciprocal_of_K, eps);
    if constexpr (!kEarly) load_weights();
    each([&](int i, int) {
      float weights[kPiece];
      w[i].widen(weights);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) y[i][e] = formulas::normalized(y[i][e], factor, weights[e]);
    });
  }

  // The same element by element, for rows of any length and address: prepare() once, then at().
  float factor;
  __device__ float element(std::int64_t m, std::int64_t k) const {
    return cuda::to_float(kAdd ? sum(m)[k] : x(m)[k]);  // what the thread wrote itself
  }
  __device__ void prepare(std::int64_t m, std::int64_t K) {
    const auto squares_of_piece = [&](std::int64_t first) {
      float piece[kPiece];
      for (int i = 0; i < kPiece; ++i) {
        const std::int64_t k = first + i;
        if (kAdd && k < K) {
          sum(m)[k] = cuda::round_to<T>(exact::add(cuda::to_float(x(m)[k]), cuda::to_float(residual(m)[k])));
        }
        piece[i] = k < K ? element(m, k) : 0.0f;
      }
      return formulas::sum_of_squares(piece);
    };
    // A thread's n pieces (as many for all, a power of two) in the order of their numbers' mirrored bits: there, halves
    // that are to be added stand side by side, and sums of equal size meet as the ones of a binary counter do.
    int bits = 0;
    while ((std::int64_t{kPiece} * blockDim.x << bits) < K) ++bits;
    float waiting[32];
    float total = 0;
    for (unsigned n = 0; n < 1u << bits; ++n) {
      const std::int64_t index = bits == 0 ? 0 : __brev(n) >> (32 - bits);
      total = squares_of_piece((threadIdx.x + index * blockDim.x) * kPiece);
      int size = 0;
      for (; n >> size & 1; ++size) total = exact::add(waiting[size], total);
      waiting[size] = total;
    }
    factor = formulas::rms_factor(sum_of_block(total), reciprocal_of_K, eps);
  }
  __device__ float at(std::int64_t m, std::int64_t k) const {
    return formulas::normalized(element(m, k), factor, cuda::to_float(weight[k]));
  }
};

template <class T>
struct SiluMul {
  static constexpr bool kWhole = false;
  static constexpr int kBytes = sizeof(T), kTwoEachOfMany = 512;
  Rows<const T> gate, up;

  template <int kPieces>
  __device__ void compute(float (&y)[kPieces][kPiece], std::int64_t m, int first, int pieces) const {
    Piece<T> g[kPieces] = {}, u[kPieces] = {};
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int index = first + i * static_cast<int>(blockDim.x);
      if (index >= pieces) continue;
      g[i] = Piece<T>::load(gate(m), index);
      u[i] = Piece<T>::load(up(m), index);
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      float factors[kPiece];
      g[i].widen(y[i]);
      u[i].widen(factors);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) y[i][e] = exact::mul(formulas::silu(y[i][e]), factors[e]);
    }
  }

  __device__ void prepare(std::int64_t, std::int64_t) const {}
  __device__ float at(std::int64_t m, std::int64_t k) const {
    return exact::mul(formulas::silu(cuda::to_float(gate(m)[k])), cuda::to_float(up(m)[k]));
  }
};

}  // namespace octavo::fused
