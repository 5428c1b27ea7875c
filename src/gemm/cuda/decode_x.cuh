// x into shared memory: copied, or quantized on the way. See decode.cuh.
#pragma once

#include "core/half.cuh"
#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "quantize/cuda/rounding.cuh"

namespace octavo::decode {

// Where a chunk of a token's, of sixteen bytes, stands in shared memory: where a thread reads several slabs' weights
// together, its x of these slabs are where it looks for them.
template <class Kind>
__device__ __forceinline__ int place_of(int chunk) {
  const int part = chunk % (4 * Kind::kTogether);
  return (chunk - part + part % Kind::kTogether * 4 + part / Kind::kTogether) * 16;
}

// A thread's share of x to shared memory: so many chunks at a time, one chunk of all tokens after the other. Calls
// `meanwhile` when the first have been asked for.
template <class Kind, int kBatch, class Meanwhile>
__device__ __forceinline__ void copy_chunks(const DecodeArguments& a, std::uint8_t* to, int chunks, int whole,
                                            const Meanwhile& meanwhile) {
  const int pitch = Kind::x_pitch(a.blocks);
  int token = 0, chunk = static_cast<int>(threadIdx.x), place = place_of<Kind>(chunk);
  const std::uint8_t* from = static_cast<const std::uint8_t*>(a.x) + chunk * 16;
  bool first = true;
  do {
    uint4 v[kBatch];
    int places[kBatch];  // less than 0: none
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      v[i] = {0, 0, 0, 0};
      if (chunk < whole) v[i] = *reinterpret_cast<const uint4*>(from);
      places[i] = chunk < chunks ? place : -1;
      from += a.x_stride;
      place += pitch;
      if (++token == a.M) {
        token = 0;
        chunk += Kind::kMultiplying;
        place = place_of<Kind>(chunk);
        from = static_cast<const std::uint8_t*>(a.x) + chunk * 16;
      }
    }
    if (first) meanwhile();
    first = false;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (places[i] >= 0) *reinterpret_cast<uint4*>(to + places[i]) = ordered<Kind::kBits>(v[i]);
    }
  } while (chunk < chunks);
}

// x to shared memory, zeros past K, by all threads that multiply. It is on the way from layer to layer, so that instructions
// count. Calls `meanwhile` as above.
template <class Kind, class Meanwhile>
__device__ __forceinline__ void copy_x(const DecodeArguments& a, std::uint8_t* to, const Meanwhile& meanwhile) {
  constexpr int kChunks = Kind::kSlabs * Kind::kSlabBytes / 16;  // of a block
  const int chunks = a.blocks * kChunks, row_bytes = a.K * static_cast<int>(sizeof(typename Kind::X)),
            whole = row_bytes / 16;
  if (a.M * chunks <= 2 * Kind::kMultiplying) {
    copy_chunks<Kind, 2>(a, to, chunks, whole, meanwhile);
  } else {
    copy_chunks<Kind, 8 * Kind::kTokenTiles>(a, to, chunks, whole, meanwhile);
  }
  if (row_bytes % 16 == 0) return;
  sm90::meet(kXIsMade, Kind::kMultiplying);  // the zeros are there
  if (static_cast<int>(threadIdx.x) < a.M) {
    const int token = static_cast<int>(threadIdx.x);
    const std::uint8_t* from = static_cast<const std::uint8_t*>(a.x) + token * a.x_stride + whole * 16;
    *reinterpret_cast<uint4*>(to + token * Kind::x_pitch(a.blocks) + place_of<Kind>(whole)) =
        ordered<Kind::kBits>(part_of(from, row_bytes - whole * 16));
  }
}

// x as int8 to shared memory, and each token's scale: quantize_per_token() (docs/numerics.md) by all threads that
// multiply, each with its values in registers between a token's largest magnitude and its rounding. Calls `meanwhile` as
// above.
inline constexpr int kQuantizedVectors = 8;
inline constexpr int kMostToQuantize = kQuantizedVectors * 8 * 32 * 8;  // by eight warps

// Four of a token's values, from two pairs of bits.
template <class Source, class Round>
__device__ __forceinline__ unsigned four_of(unsigned a, unsigned b, const Round& round) {
  const auto at = [&](unsigned bits) { return round(cuda::Element<Source>::value(bits)); };
  return cuda::lowest_bytes(at(a & 0xffff), at(a >> 16), at(b & 0xffff), at(b >> 16));
}

// For scales so small or large that an estimated quotient cannot be corrected.
template <class Source>
__device__ __noinline__ uint2 quantize_by_division(uint4 v, float scale) {
  const auto round = [scale](float x) { return cuda::nearest(exact::div(x, scale)); };
  return {four_of<Source>(v.x, v.y, round), four_of<Source>(v.z, v.w, round)};
}

template <class Kind, class Meanwhile>
__device__ __forceinline__ void quantize_x(const DecodeArguments& a, std::uint8_t* to, float* scales,
                                           const Meanwhile& meanwhile) {
  using Source = typename Kind::Source;
  using Element = cuda::Element<Source>;
  const int threads = Kind::kMultiplying, vectors = a.K / 8, all = a.M * vectors, pitch = Kind::x_pitch(a.blocks);
  float* reciprocals = scales + kMaxTokens;
  auto* largest = reinterpret_cast<unsigned*>(reciprocals);  // before
  const auto token_of = [&](int at) { return a.M == 1 ? 0 : a.by_vectors.divide(at); };
  if (threadIdx.x < kMaxTokens) largest[threadIdx.x] = 0;
  uint4 v[kQuantizedVectors];
#pragma unroll
  for (int i = 0; i < kQuantizedVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads, token = token_of(at);
    v[i] = {0, 0, 0, 0};
    if (at < all) {
      v[i] = *reinterpret_cast<const uint4*>(static_cast<const std::uint8_t*>(a.x) + token * a.x_stride +
                                             (at - token * vectors) * 16);
    }
  }
  meanwhile();
  sm90::meet(kXIsMade, Kind::kMultiplying);
#pragma unroll
  for (int i = 0; i < kQuantizedVectors; ++i) {
    if (i * threads >= all) break;
    const int token = min(token_of(static_cast<int>(threadIdx.x) + i * threads), a.M - 1);
    const unsigned pairs =
        __vmaxu2(__vmaxu2(v[i].x & 0x7fff7fffu, v[i].y & 0x7fff7fffu), __vmaxu2(v[i].z & 0x7fff7fffu, v[i].w & 0x7fff7fffu));
    const unsigned magnitude = max(pairs & 0xffff, pairs >> 16);
    const int first = __shfl_sync(~0u, token, 0);
    if (__all_sync(~0u, token == first)) {
      const unsigned of_warp = __reduce_max_sync(~0u, magnitude);
      if (threadIdx.x % 32 == 0) atomicMax(&largest[token], of_warp);
    } else {
      atomicMax(&largest[token], magnitude);
    }
  }
  sm90::meet(kXIsMade, Kind::kMultiplying);
  if (static_cast<int>(threadIdx.x) < a.M) {
    const unsigned bits = largest[threadIdx.x];
    const bool finite = bits < Element::kInfinity;
    const float scale = finite ? cuda::activation_scale(Element::value(bits)) : __uint_as_float(cuda::kNaN);
    scales[threadIdx.x] = scale;
    reciprocals[threadIdx.x] = exact::div(1.0f, scale);
  }
  sm90::meet(kXIsMade, Kind::kMultiplying);
#pragma unroll
  for (int i = 0; i < kQuantizedVectors; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads, token = token_of(at);
    if (at >= all) break;
    const float scale = scales[token];
    const cuda::Quotient<1> quotient(scale, reciprocals[token]);
    uint2 q = {0, 0};  // of a row with a NaN or Inf, whose scale is NaN
    if (quotient.corrects()) {
      const auto round = [&](float x) { return cuda::nearest(quotient.corrected(x)); };
      q = {four_of<Source>(v[i].x, v[i].y, round), four_of<Source>(v[i].z, v[i].w, round)};
    } else if (scale == scale) {
      q = quantize_by_division<Source>(v[i], scale);
    }
    *reinterpret_cast<uint2*>(to + token * pitch + (at - token * vectors) * 8) = q;
  }
}

}  // namespace octavo::decode
