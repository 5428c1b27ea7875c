// Products of few tokens on GPUs with a tensor copy engine (TMA): y[M, N] = x[M, K] · w[N, K]ᵀ for M up to 16, with int8 or
// int4 weights row-major as they come from a checkpoint. Time is reading the weights once, so all that is here is about
// keeping memory busy, and about the time from one kernel of a chain to the next:
//
//   w, a tile of       | warp 0 | warp 1 | … | warp 15 | warp 0 | …   K in blocks of 128 bytes, dealt to the CTA's warps in
//   16 channels        |  2 KB  |  2 KB  |   |                        turn, on and on through all its tiles
//
//   ring of a warp     | block | block | …    copied by one of its threads (TMA), read by the warp that asked for them: no
//                                             warp waits for another before the end of a tile
//   x                  | token | token | …    all of K, copied once a CTA
//   sums               | warp 0 | … | warp 15 |    of a tile, added in this order by one of the warps, which scales, rounds
//                                                  and stores, while the others go on with the next tile
//
//   a warp's time      ask, ask | wait for the kernel in front | copy x | take 0, ask, multiply | take 1, ask, multiply | …
//
// A CTA takes a run of tiles. Two of them fill a multiprocessor, and the kernel behind may start at once: its CTAs take the
// places of those that end, and ask for their weights while others still work on ours.
#pragma once

#include <type_traits>
#include <utility>

#include "core/ptx.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/mma.cuh"
#include "gemm/cuda/sm90.cuh"
#include "quantize/cuda/rounding.cuh"

namespace octavo::decode {

inline constexpr int kMaxWarps = 16;
inline constexpr int kMaxTokens = 16;
inline constexpr int kChannels = 16;   // of a tile
inline constexpr int kBlockRow = 128;  // bytes of a channel in a block: as many as the copy engine swizzles together
inline constexpr int kBlockBytes = kChannels * kBlockRow;
inline constexpr int kSlabBytes = 64;  // of a token

// n / divisor for n below 2^31 / divisor.
struct Divisor {
  unsigned reciprocal;
  Divisor() = default;
  explicit Divisor(unsigned divisor)
      : reciprocal(static_cast<unsigned>(((std::uint64_t{1} << 31) + divisor - 1) / divisor)) {}
#if defined(__CUDACC__)
  __device__ __forceinline__ int divide(int n) const { return static_cast<int>(__umulhi(2 * n, reciprocal)); }
#endif
};

// Scales and zero points of a weight that has groups, or zero points; per channel or tensor, one group as long as K.
struct Groups {
  const float* scale;
  std::int64_t scale_stride;       // elements from a channel to the next; 0 per tensor
  const std::uint8_t* zero_point;  // nullptr: none
  std::int64_t zero_point_stride;
  Divisor size;
  int last;  // of a channel
};

struct DecodeArguments {
  int M, N, K;
  const void* x;
  std::int64_t x_stride;  // bytes
  void* y;
  std::int64_t y_stride;  // bytes
  DType y_dtype;
  cuda::Epilogue epilogue;
  Groups groups;  // where kFlush > 0
  bool constant_w;
  int warps;    // of a CTA
  int stages;   // of a warp's ring
  int buffers;  // of tiles' sums, a power of two
  int blocks;   // of a tile
  Divisor by_blocks;
  Divisor by_vectors;  // of x, where it is quantized
};

// What a kernel multiplies: kBits of a weight; kFlush slabs from one group's sums to the next, 0 where the whole of K has
// one scale.
// x comes as Source: as X, or of 16 bits to be quantized.
template <class X_, int kBits_, int kFlush_, int kTokenTiles_, class Source_ = X_>
struct Kind {
  using X = X_;
  using Source = Source_;
  static constexpr bool kQuantizes = !std::is_same_v<X, Source>;
  static constexpr int kBits = kBits_, kFlush = kFlush_, kTokenTiles = kTokenTiles_;
  static constexpr bool kInteger = sizeof(X) == 1;
  static constexpr int kBlockK = kBlockRow * 8 / kBits;
  static constexpr int kSlabK = kSlabBytes / static_cast<int>(sizeof(X));
  static constexpr int kSlabs = kBlockK / kSlabK;  // of a block
  static constexpr int kUnits = kFlush == 0 ? 1 : kSlabs / kFlush;
  static constexpr int kWords = kSlabK * kBits / 128;  // of a channel in a slab, of which a thread has so many
  // A thread reads 16 bytes of a channel at a time, those of so many slabs: what it multiplies as slab i of them is its i-th
  // part. Where groups are as short as a slab, it reads one slab's.
  static constexpr int kTogether = kFlush == 1 ? 1 : 4 / kWords;
  // Bytes of a channel that a thread reads at a time.
  static constexpr int kRead = 4 * kWords * kTogether;
  __host__ __device__ static int blocks(int K) { return (K + kBlockK - 1) / kBlockK; }
  // Bytes from a token to the next in shared memory: such that two of them read together touch different banks.
  __host__ __device__ static int x_pitch(int blocks) { return (blocks * kSlabs * kSlabBytes + 127) / 128 * 128 + 64; }
};

// Shared memory, in bytes from a multiple of the swizzle's pattern.
template <class Kind>
struct Shared {
  static constexpr int kPattern = 1024;
  int sums_bytes;  // of a warp: by rows of a product, two tokens together
  int barriers, scales, sums, x, bytes;

  __host__ __device__ explicit Shared(const DecodeArguments& a) {
    sums_bytes = kChannels * ((a.M + 1) / 2 * 2) * 4;
    barriers = a.warps * a.stages * kBlockBytes;
    scales = barriers + (a.warps * a.stages + 2 * a.buffers) * 8;  // of tokens quantized here, and their magnitudes
    sums = (scales + (Kind::kQuantizes ? 8 * kMaxTokens : 0) + 127) / 128 * 128;
    x = sums + a.buffers * a.warps * sums_bytes;
    bytes = kPattern + x + a.M * Kind::x_pitch(a.blocks);
  }
};

// Tells a barrier of the CTA that this thread, and what the warp did before, is there.
__device__ __forceinline__ void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// --- A warp's blocks ---------------------------------------------------------------------------------------------------

// A warp's share of the blocks of a CTA's tiles: one in so many as there are warps.
template <class Kind>
class Blocks {
 public:
  using X = typename Kind::X;
  using P = Product<X, Kind::kBits>;
  using Sum = typename P::Sum;
  static constexpr int kTokenTiles = Kind::kTokenTiles;

  // Which channel of a tile is row g of a product: such that threads that read together touch different banks.
  __device__ __forceinline__ static unsigned channel_of(unsigned g) {
    if constexpr (Kind::kRead == 16) return g / 2 + g % 2 * 4;
    if constexpr (Kind::kRead == 8) return g % 4 * 2 + g / 4;
    return g;
  }

  __device__ __forceinline__ Blocks(const DecodeArguments& a, const CUtensorMap& w, const Shared<Kind>& shared,
                                    std::uint8_t* memory, int warp, unsigned lane, int first_tile, int end_tile)
      : a_(a),
        w_(w),
        memory_(memory),
        lane_(lane),
        channel_(channel_of(lane / 4)),
        first_tile_(first_tile),
        ring_(warp * a.stages * kBlockBytes),
        full_(ptx::shared_address(memory) + shared.barriers + warp * a.stages * 8),
        next_(warp),
        asked_(warp),
        end_((end_tile - first_tile) * a.blocks) {
    if (lane < a.stages) sm90::barrier_init(full_ + lane * 8, 1);
    sm90::barrier_init_fence();
    __syncwarp();
  }

  // Whether the next block is of a tile; and where it stands in it.
  __device__ __forceinline__ bool next_is_of(int tile) const { return next_ < (tile - first_tile_ + 1) * a_.blocks; }

  __device__ __forceinline__ void fill() {
    for (int stage = 0; stage < a_.stages; ++stage) ask(stage);
    if constexpr (Kind::kFlush > 0) load_parameters();
  }

  // Adds the products of the next block with x, which is a tile's. Its place in the ring is asked for again at once.
  __device__ __forceinline__ void multiply(int tile, const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) {
    const int block = next_ - (tile - first_tile_) * a_.blocks;
    sm90::barrier_wait(full_ + stage_ * 8, phase_);
    std::uint32_t low[8], high[8];
    const unsigned of_thread = lane_ % 4 * Kind::kRead ^ channel_ * 16;
    const std::uint8_t* rows = memory_ + ring_ + stage_ * kBlockBytes + channel_ * kBlockRow;
#pragma unroll
    for (int i = 0; i < 32 / Kind::kRead; ++i) {
      const std::uint8_t* p = rows + (of_thread ^ unsigned{4 * Kind::kRead} * i);
      load(low + i * Kind::kRead / 4, p);
      load(high + i * Kind::kRead / 4, p + 8 * kBlockRow);
    }
    __syncwarp();  // all have read the block
    ask(stage_);
    if (++stage_ == a_.stages) {
      stage_ = 0;
      phase_ ^= 1;
    }
    next_ += a_.warps;
    int x_block[kTokenTiles];
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) x_block[j] = x_of[j] + block * (Kind::kSlabs * kSlabBytes);
    if constexpr (Kind::kFlush == 0) {
      slabs<0, Kind::kSlabs>(P(), low, high, x_block, sums);
    } else {
      const Parameters parameters = parameters_;
      load_parameters();
      unroll_units(parameters, low, high, x_block, sums, std::make_integer_sequence<int, Kind::kUnits>());
    }
  }

 private:
  // Of a block's channels and units: lane 16u + c has those of channel c in units u, u + 2 …
  struct Parameters {
    static constexpr int kCount = (Kind::kUnits + 1) / 2;
    float scale[kCount];
    std::uint32_t zero_point[kCount];
  };

  __device__ __forceinline__ static void load(std::uint32_t* words, const std::uint8_t* p) {
    if constexpr (Kind::kRead == 16) {
      const uint4 v = *reinterpret_cast<const uint4*>(p);
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    } else if constexpr (Kind::kRead == 8) {
      const uint2 v = *reinterpret_cast<const uint2*>(p);
      words[0] = v.x, words[1] = v.y;
    } else {
      words[0] = *reinterpret_cast<const std::uint32_t*>(p);
    }
  }

  // Slabs [kFirst, kEnd) of a block.
  template <int kFirst, int kEnd>
  __device__ __forceinline__ void slabs(const P& product, const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                        const int (&x_block)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) const {
#pragma unroll
    for (int s = kFirst; s < kEnd; ++s) {
      uint4 x[kTokenTiles];
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) x[j] = *reinterpret_cast<const uint4*>(memory_ + x_block[j] + s * kSlabBytes);
      product.slab(sums, low + s * Kind::kWords, high + s * Kind::kWords, x);
    }
  }

  template <int... kUnits>
  __device__ __forceinline__ void unroll_units(const Parameters& parameters, const std::uint32_t (&low)[8],
                                               const std::uint32_t (&high)[8], const int (&x_block)[kTokenTiles],
                                               float (&sums)[kTokenTiles][2][4], std::integer_sequence<int, kUnits...>) {
    (unit<kUnits>(parameters, low, high, x_block, sums), ...);
  }

  // kFlush slabs, which have one scale a channel.
  template <int kUnit>
  __device__ __forceinline__ void unit(const Parameters& parameters, const std::uint32_t (&low)[8],
                                       const std::uint32_t (&high)[8], const int (&x_block)[kTokenTiles],
                                       float (&sums)[kTokenTiles][2][4]) {
    const unsigned from = kUnit % 2 * kChannels + channel_;
    P product;
    if (a_.groups.zero_point != nullptr) {
      const std::uint32_t zero_point = parameters.zero_point[kUnit / 2];
      product.low.set_zero_point(__shfl_sync(~0u, zero_point, from));
      product.high.set_zero_point(__shfl_sync(~0u, zero_point, from + 8));
    }
    float part[kTokenTiles][2][4] = {};
    slabs<kUnit * Kind::kFlush, (kUnit + 1) * Kind::kFlush>(product, low, high, x_block, part);
    const float scale = parameters.scale[kUnit / 2];
    const float scales[2] = {__shfl_sync(~0u, scale, from), __shfl_sync(~0u, scale, from + 8)};
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[j][0][i] = __fmaf_rn(part[j][0][i] + part[j][1][i], scales[i / 2], sums[j][0][i]);
      }
    }
  }

  // Of the next block, while the one before it is multiplied.
  __device__ __forceinline__ void load_parameters() {
    if (next_ >= end_) return;
    const Groups& groups = a_.groups;
    const int tile = a_.by_blocks.divide(next_), block = next_ - tile * a_.blocks;
    const int n = min((first_tile_ + tile) * kChannels + static_cast<int>(lane_ % kChannels), a_.N - 1);
    const float* scale = groups.scale + n * groups.scale_stride;
    const std::uint8_t* zero_point = groups.zero_point + n * groups.zero_point_stride;
#pragma unroll
    for (int i = 0; i < Parameters::kCount; ++i) {
      const int k = block * Kind::kBlockK + (2 * i + static_cast<int>(lane_ / kChannels)) * (Kind::kFlush * Kind::kSlabK);
      const int group = min(groups.size.divide(k), groups.last);  // past K, x is 0
      parameters_.scale[i] = scale[group];
      if (groups.zero_point != nullptr) parameters_.zero_point[i] = zero_point[group];
    }
  }

  // The next block into a place of the ring, if there is one more.
  __device__ __forceinline__ void ask(int stage) {
    if (asked_ >= end_) return;
    if (lane_ == 0) {
      const int tile = a_.by_blocks.divide(asked_), block = asked_ - tile * a_.blocks;
      const std::uint32_t full = full_ + stage * 8;
      sm90::barrier_expect(full, kBlockBytes);
      sm90::copy_box(ptx::shared_address(memory_) + ring_ + stage * kBlockBytes, w_, block * kBlockRow,
                     (first_tile_ + tile) * kChannels, full, 0, false);
    }
    asked_ += a_.warps;
  }

  const DecodeArguments& a_;
  const CUtensorMap& w_;
  std::uint8_t* memory_;
  unsigned lane_, channel_;
  int first_tile_, ring_;
  std::uint32_t full_;
  int next_, asked_, end_, stage_ = 0;
  std::uint32_t phase_ = 0;
  Parameters parameters_;
};

// --- The kernel ---------------------------------------------------------------------------------------------------

// x to shared memory, zeros past K, by all threads of the CTA; where a thread reads several slabs' weights together, its x
// of these slabs go to where it looks for them.
template <class Kind>
__device__ __forceinline__ void copy_x(const DecodeArguments& a, std::uint8_t* to) {
  constexpr int kBatch = 8, kTogether = Kind::kTogether, kChunks = Kind::kSlabs * kSlabBytes / 16;  // of a block
  const int threads = a.warps * 32, chunks = a.blocks * kChunks, all = a.M * chunks, pitch = Kind::x_pitch(a.blocks);
  const int row_bytes = a.K * static_cast<int>(sizeof(typename Kind::X)), whole = row_bytes / 16;
  const auto row = [&](int token) { return static_cast<const std::uint8_t*>(a.x) + token * a.x_stride; };
  const auto place = [&](int token, int chunk) {
    const int part = chunk % (4 * kTogether);
    return to + token * pitch + (chunk - part + part % kTogether * 4 + part / kTogether) * 16;
  };
  for (int first = static_cast<int>(threadIdx.x); first < all; first += kBatch * threads) {
    uint4 v[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * threads, token = a.by_blocks.divide(at / kChunks), chunk = at - token * chunks;
      v[i] = {0, 0, 0, 0};
      if (at < all && chunk < whole) v[i] = *reinterpret_cast<const uint4*>(row(token) + chunk * 16);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + i * threads, token = a.by_blocks.divide(at / kChunks), chunk = at - token * chunks;
      if (at < all) *reinterpret_cast<uint4*>(place(token, chunk)) = ordered<Kind::kBits>(v[i]);
    }
  }
  if (row_bytes % 16 == 0) return;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < a.M) {
    const int token = static_cast<int>(threadIdx.x);
    *reinterpret_cast<uint4*>(place(token, whole)) =
        ordered<Kind::kBits>(part_of(row(token) + whole * 16, row_bytes - whole * 16));
  }
}

// x as int8 to shared memory, and each token's scale: quantize_per_token() (docs/numerics.md) by all threads of the CTA,
// each with its values in registers between a token's largest magnitude and its rounding.
inline constexpr int kQuantizedVectors = 8;
inline constexpr int kMostToQuantize = kQuantizedVectors * 8 * 32 * kMaxWarps / 2;

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

template <class Kind>
__device__ __forceinline__ void quantize_x(const DecodeArguments& a, std::uint8_t* to, float* scales) {
  using Source = typename Kind::Source;
  using Element = cuda::Element<Source>;
  const int threads = a.warps * 32, vectors = a.K / 8, all = a.M * vectors, pitch = Kind::x_pitch(a.blocks);
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
  __syncthreads();
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
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < a.M) {
    const unsigned bits = largest[threadIdx.x];
    const bool finite = bits < Element::kInfinity;
    const float scale = finite ? cuda::activation_scale(Element::value(bits)) : __uint_as_float(cuda::kNaN);
    scales[threadIdx.x] = scale;
    reciprocals[threadIdx.x] = exact::div(1.0f, scale);
  }
  __syncthreads();
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

// One value of y, of its scaled sum.
__device__ __forceinline__ void store(const DecodeArguments& a, int m, int n, float v) {
  void* row = static_cast<char*>(a.y) + m * a.y_stride;
  switch (a.y_dtype) {
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(row)[n] = __float2bfloat16_rn(v);
      return;
    case DType::kFloat16:
      static_cast<__half*>(row)[n] = __float2half_rn(v);
      return;
    default:
      static_cast<float*>(row)[n] = v;
  }
}

// The outputs of a tile from its warps' sums, by one warp.
template <class Kind>
__device__ __forceinline__ void reduce(const DecodeArguments& a, int tile, const std::uint8_t* sums, int sums_bytes,
                                       const float* scales, unsigned lane, std::uint32_t full, std::uint32_t parity,
                                       std::uint32_t empty) {
  using P = Product<typename Kind::X, Kind::kBits>;
  using Two = std::conditional_t<Kind::kInteger, int2, float2>;
  const int g = lane / 4, t = lane % 4, n = tile * kChannels + static_cast<int>(Blocks<Kind>::channel_of(lane / 4));
  const int pitch = sums_bytes / kChannels;
  const bool scaled = a.y_dtype != DType::kInt32;
  float w_scale[2] = {1, 1}, bias[2] = {}, x_scale[Kind::kTokenTiles][2] = {};
  if (scaled) {  // asked for now, used when the sums are there
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = min(n + i * 8, a.N - 1);
      if constexpr (Kind::kFlush == 0) w_scale[i] = cuda::w_scale_at(a.epilogue, row);
      if (a.epilogue.bias != nullptr) bias[i] = cuda::bias_at(a.epilogue, row);
      if constexpr (Kind::kInteger) {
#pragma unroll
        for (int j = 0; j < Kind::kTokenTiles; ++j) {
          const int m = min(j * 8 + t * 2 + i, a.M - 1);
          x_scale[j][i] = Kind::kQuantizes ? scales[m] : cuda::x_scale_at(a.epilogue, m);
        }
      }
    }
  }
  sm90::barrier_wait(full, parity);
  typename P::Sum d[Kind::kTokenTiles][4] = {};
#pragma unroll
  for (int j = 0; j < Kind::kTokenTiles; ++j) {
    if (j * 8 + t * 2 >= a.M) break;
#pragma unroll 8
    for (int i = 0; i < a.warps; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Two v = *reinterpret_cast<const Two*>(sums + i * sums_bytes + (half * 8 + g) * pitch + (j * 8 + t * 2) * 4);
        d[j][2 * half] += v.x;
        d[j][2 * half + 1] += v.y;
      }
    }
  }
  __syncwarp();
  if (lane == 0) arrive(empty);
#pragma unroll
  for (int j = 0; j < Kind::kTokenTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int m = j * 8 + t * 2 + i % 2, row = n + i / 2 * 8;
      if (m >= a.M || row >= a.N) continue;
      float v;
      if constexpr (Kind::kInteger) {
        if (!scaled) {
          reinterpret_cast<std::int32_t*>(static_cast<char*>(a.y) + m * a.y_stride)[row] = d[j][i];
          continue;
        }
        v = cuda::scale_sum(d[j][i], w_scale[i / 2], x_scale[j][i % 2]);
      } else {
        v = Kind::kFlush > 0 ? d[j][i] : __fmul_rn(d[j][i], w_scale[i / 2]);
      }
      if (a.epilogue.bias != nullptr) v = __fadd_rn(v, bias[i / 2]);
      store(a, m, row, v);
    }
  }
}

template <class Kind>
__global__ void __launch_bounds__(kMaxWarps * 32, 1)
    decode_kernel(const __grid_constant__ DecodeArguments a, const __grid_constant__ CUtensorMap w) {
#if __CUDA_ARCH__ >= 900
  ptx::launch_dependents();
  using Sum = typename Product<typename Kind::X, Kind::kBits>::Sum;
  using Two = std::conditional_t<Kind::kInteger, int2, float2>;
  extern __shared__ std::uint8_t unaligned[];
  const Shared<Kind> shared(a);
  std::uint8_t* memory = unaligned + (-ptx::shared_address(unaligned) & (shared.kPattern - 1));
  const unsigned lane = threadIdx.x % 32;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x / 32), 0);
  const unsigned all_tiles = (a.N + kChannels - 1) / kChannels;
  const int first = static_cast<int>(blockIdx.x * all_tiles / gridDim.x);
  const int end = static_cast<int>((blockIdx.x + 1) * all_tiles / gridDim.x);
  Blocks<Kind> blocks(a, w, shared, memory, warp, lane, first, end);
  if (!a.constant_w) ptx::wait_for_predecessor();
  blocks.fill();
  // Of so many tiles' sums each: all there, and all read.
  const std::uint32_t full = ptx::shared_address(memory) + shared.barriers + a.warps * a.stages * 8,
                      empty = full + a.buffers * 8;
  const unsigned buffers = a.buffers;
  if (threadIdx.x < 2 * buffers) sm90::barrier_init(full + threadIdx.x * 8, threadIdx.x < buffers ? a.warps : 1);
  ptx::wait_for_predecessor();
  auto* scales = reinterpret_cast<float*>(memory + shared.scales);
  if constexpr (Kind::kQuantizes) {
    quantize_x<Kind>(a, memory + shared.x, scales);
  } else {
    copy_x<Kind>(a, memory + shared.x);
  }
  __syncthreads();

  // The tokens past the last are it again; their sums are not stored.
  int x_of[Kind::kTokenTiles];
#pragma unroll
  for (int j = 0; j < Kind::kTokenTiles; ++j) {
    x_of[j] = shared.x + min(j * 8 + lane / 4, a.M - 1) * Kind::x_pitch(a.blocks) + lane % 4 * 16;
  }
  for (int tile = first; tile < end; ++tile) {
    Sum sums[Kind::kTokenTiles][2][4] = {};
    while (blocks.next_is_of(tile)) {
      blocks.multiply(tile, x_of, sums);
    }

    // The warps' sums meet in shared memory, once those of the tile that had the place before have been read.
    const unsigned it = tile - first, buffer = it & (buffers - 1), round = buffers == 4 ? it / 4 : it / 2;
    std::uint8_t* met = memory + shared.sums + buffer * a.warps * shared.sums_bytes;
    if (round > 0) sm90::barrier_wait(empty + buffer * 8, (round - 1) % 2);
    std::uint8_t* mine = met + warp * shared.sums_bytes + lane / 4 * (shared.sums_bytes / kChannels) + lane % 4 * 8;
#pragma unroll
    for (int j = 0; j < Kind::kTokenTiles; ++j) {
      if (j * 8 + lane % 4 * 2 >= a.M) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<Two*>(mine + j * 32 + half * (shared.sums_bytes / 2)) = {
            sums[j][0][2 * half] + sums[j][1][2 * half], sums[j][0][2 * half + 1] + sums[j][1][2 * half + 1]};
      }
    }
    __syncwarp();
    if (lane == 0) arrive(full + buffer * 8);
    if (warp == static_cast<int>(it & (a.warps - 1))) {
      reduce<Kind>(a, tile, met, shared.sums_bytes, scales, lane, full + buffer * 8, round % 2, empty + buffer * 8);
    }
  }
#endif
}

}  // namespace octavo::decode
