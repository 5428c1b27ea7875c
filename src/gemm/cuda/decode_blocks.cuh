// A warp's way through the weights: asking for blocks, and multiplying them. See decode.cuh.
#pragma once

#include <utility>

#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::decode {

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

}  // namespace octavo::decode
