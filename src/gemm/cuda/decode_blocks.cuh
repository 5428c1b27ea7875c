// A warp's way through the weights: asking for blocks, and multiplying them. See decode.cuh.
#pragma once

#include <utility>

#include "gemm/cuda/decode_kind.cuh"
#include "gemm/cuda/decode_products.cuh"
#include "gemm/cuda/sm90.cuh"

namespace octavo::decode {

// A warp's share of the blocks of a CTA's tiles: one in so many as there are warps. Tiles are numbered as the CTA meets
// them.
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
                                    std::uint8_t* memory, int warp, unsigned lane, int first_tile, int step, int tiles)
      : a_(a),
        w_(w),
        memory_(memory),
        lane_(lane),
        channel_(channel_of(lane / 4)),
        first_channel_(first_tile * kChannels),
        step_(step * kChannels),
        ring_(warp * a.stages * kBlockBytes),
        full_(ptx::shared_address(memory) + shared.barriers + warp * a.stages * 8),
        parameters_(shared.parameters + warp * (a.stages + 1) * shared.parameter_bytes),
        parameter_bytes_(shared.parameter_bytes),
        next_(warp),
        asked_(warp),
        end_(tiles * a.blocks) {
    if (lane < a.stages) sm90::barrier_init(full_ + lane * 8, Kind::kFlush > 0 ? 1 + 32 : 1);
    sm90::barrier_init_fence();
    __syncwarp();
  }

  // Whether the next block is of a tile; and where it stands in it.
  __device__ __forceinline__ bool next_is_of(int tile) const { return next_ < (tile + 1) * a_.blocks; }

  // Asks for as much as the ring holds.
  __device__ __forceinline__ void fill() {
    for (int stage = 0; stage < a_.stages; ++stage) ask(stage);
  }

  // Adds the products of the next block with x, which is a tile's. Its place in the ring is asked for again at once.
  __device__ __forceinline__ void multiply(int tile, const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) {
    const int block = next_ - tile * a_.blocks;
    sm90::barrier_wait(full_ + stage_ * 8, phase_);
    const int stage = stage_, slot = slot_;
    if (++stage_ == a_.stages) {
      stage_ = 0;
      phase_ ^= 1;
    }
    slot_ = slot_ == a_.stages ? 0 : slot_ + 1;
    next_ += Kind::kWarps;
    const std::uint8_t* parameters = memory_ + parameters_ + slot * parameter_bytes_ + channel_ * 4;
    // Short groups take so many instructions that two boxes' would not be found in the cache of them.
#pragma unroll(Kind::kFlush == 1 ? 1 : kBoxes)
    for (int i = 0; i < kBoxes; ++i) box(i, stage, parameters, tile, block, x_of, sums);
  }

 private:
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

  // A box of the block. When the last one is in registers, the block's place is asked for again.
  __device__ __forceinline__ void box(int number, int stage, const std::uint8_t* parameters, int tile, int block,
                                      const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) {
    std::uint32_t low[8], high[8];
    const unsigned of_thread = lane_ % 4 * Kind::kRead ^ channel_ * 16;
    const std::uint8_t* rows = memory_ + ring_ + stage * kBlockBytes + number * kBoxBytes + channel_ * kBoxRow;
#pragma unroll
    for (int i = 0; i < 32 / Kind::kRead; ++i) {
      const std::uint8_t* p = rows + (of_thread ^ unsigned{4 * Kind::kRead} * i);
      load(low + i * Kind::kRead / 4, p);
      load(high + i * Kind::kRead / 4, p + 8 * kBoxRow);
    }
    if (number == kBoxes - 1) {
      __syncwarp();  // all have read the block
      ask(stage);
    }
    int x[kTokenTiles];
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      x[j] = x_of[j] + block * (Kind::kSlabs * kSlabBytes) + number * (Kind::kBoxSlabs * kSlabBytes);
    }
    if constexpr (Kind::kFlush == 0) {
      slabs<0, Kind::kBoxSlabs>(P(), low, high, x, sums);
    } else {
      const int first = number * Kind::kBoxUnits;
      units(parameters + first * kUnitBytes, tile, block, first, low, high, x, sums,
            std::make_integer_sequence<int, Kind::kBoxUnits>());
    }
  }

  // kCount slabs of a box, whose x this is, from kFirst on.
  template <int kFirst, int kCount>
  __device__ __forceinline__ void slabs(const P& product, const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                        const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) const {
#pragma unroll
    for (int s = kFirst; s < kFirst + kCount; ++s) {
      uint4 x[kTokenTiles];
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) x[j] = *reinterpret_cast<const uint4*>(memory_ + x_of[j] + s * kSlabBytes);
      product.slab(sums, low + s * Kind::kWords, high + s * Kind::kWords, x);
    }
  }

  template <int... kUnit>
  __device__ __forceinline__ void units(const std::uint8_t* parameters, int tile, int block, int first,
                                        const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                        const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4],
                                        std::integer_sequence<int, kUnit...>) {
    (unit<kUnit>(parameters + kUnit * kUnitBytes, tile, block, first + kUnit, low, high, x, sums), ...);
  }

  // kFlush slabs of a box, which have one scale a channel: unit `number` of the block.
  template <int kUnit>
  __device__ __forceinline__ void unit(const std::uint8_t* parameters, int tile, int block, int number,
                                       const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                       const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4]) {
    P product;
    if (a_.groups.zero_point != nullptr) {
      const int n = first_channel_ + tile * step_ + static_cast<int>(channel_);
      const int group = group_of<Kind>(a_.groups, block, number);
      using W = cuda::Weights<X, Kind::kBits>;
      product.low.set(W::prepared(zero_point_in(parameters + Kind::kZeroPoints, n, group)));
      product.high.set(W::prepared(zero_point_in(parameters + Kind::kZeroPoints + 8 * 4, n + 8, group)));
    }
    float part[kTokenTiles][2][4] = {};
    slabs<kUnit * Kind::kFlush, Kind::kFlush>(product, low, high, x, part);
    const float scales[2] = {*reinterpret_cast<const float*>(parameters),
                             *reinterpret_cast<const float*>(parameters + 8 * 4)};
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[j][0][i] = __fmaf_rn(part[j][0][i] + part[j][1][i], scales[i / 2], sums[j][0][i]);
      }
    }
  }

  __device__ __forceinline__ std::uint32_t zero_point_in(const std::uint8_t* four, int n, int group) const {
    return cuda::byte_of_word(*reinterpret_cast<const std::uint32_t*>(four), a_.groups.zero_point_at(n, group));
  }

  // Lane 16u + c asks for those of channel c and units u, u + 2 …
  __device__ __forceinline__ void ask_parameters(int tile, int block, std::uint32_t full) {
    const int channel = static_cast<int>(lane_ % kChannels), n = min(first_channel_ + tile * step_ + channel, a_.N - 1);
    const std::uint32_t to = ptx::shared_address(memory_) + parameters_ + asked_slot_ * parameter_bytes_ + channel * 4;
    asked_slot_ = asked_slot_ == a_.stages ? 0 : asked_slot_ + 1;
    const float* scale = a_.groups.scale + n * a_.groups.scale_stride;
#pragma unroll
    for (int i = 0; i < Kind::kUnits; i += 2) {
      const int unit = i + static_cast<int>(lane_ / kChannels);
      const int group = group_of<Kind>(a_.groups, block, unit);
      cuda::copy4_async(to + unit * kUnitBytes, scale + group, 4);
      if (a_.groups.zero_point != nullptr) {
        cuda::copy_word_around_async(to + Kind::kZeroPoints + unit * kUnitBytes, a_.groups.zero_point_at(n, group),
                                     a_.groups.zero_point_at(a_.N - 1, a_.groups.last));
      }
    }
    sm90::barrier_arrive_when_copied(full);
  }

  // The next block into a place of the ring, if there is one more.
  __device__ __forceinline__ void ask(int stage) {
    if (asked_ >= end_) return;
    const std::uint32_t full = full_ + stage * 8;
    if (Kind::kFlush > 0 || lane_ == 0) {
      const int tile = a_.by_blocks.divide(asked_), block = asked_ - tile * a_.blocks;
      if (lane_ == 0) {
        sm90::barrier_expect(full, kBlockBytes);
        const std::uint32_t to = ptx::shared_address(memory_) + ring_ + stage * kBlockBytes;
        const int n = first_channel_ + tile * step_;
        if (a_.whole_boxes) {
          sm90::copy_boxes(to, w_, block * kBoxes, n, full);
        } else {
#pragma unroll
          for (int i = 0; i < kBoxes; ++i) {
            sm90::copy_box(to + i * kBoxBytes, w_, (block * kBoxes + i) * kBoxRow, n, full);
          }
        }
      }
      if constexpr (Kind::kFlush > 0) ask_parameters(tile, block, full);
    }
    asked_ += Kind::kWarps;
  }

  const DecodeArguments& a_;
  const CUtensorMap& w_;
  std::uint8_t* memory_;
  unsigned lane_, channel_;
  int first_channel_, step_, ring_;
  std::uint32_t full_;
  // Scales and zero points: a ring of one place more, since they are read where they stand, after the next are asked for.
  int parameters_, parameter_bytes_;
  int next_, asked_, end_, stage_ = 0, slot_ = 0, asked_slot_ = 0;
  std::uint32_t phase_ = 0;
};

}  // namespace octavo::decode
