// A warp's way through the weights: asking for blocks, and multiplying them. See decode.cuh.
#pragma once

#include <utility>

#include "core/half.cuh"
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
        has_x_(Kind::kColumns == 1 || lane / 4 % Kind::kColumns == lane % 4 * Kind::kColumns / 4),
        first_channel_(first_tile * kChannels),
        step_(step * kChannels),
        ring_(warp * a.stages * kBlockBytes),
        full_(ptx::shared_address(memory) + shared.barriers + warp * a.stages * 8),
        parameters_(shared.parameters + warp * (a.stages + 1) * shared.parameter_bytes),
        parameter_bytes_(shared.parameter_bytes),
        zero_point_pitch_(Kind::zero_point_pitch(a.groups)),
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
    const std::uint8_t* parameters = memory_ + parameters_ + slot * parameter_bytes_;
    // So many short groups take so many instructions that two boxes' would not be found in the cache of them.
#pragma unroll(Kind::kFlush == 1 && Kind::kColumns == 1 ? 1 : kBoxes)
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
      runs(parameters, tile, block, first, low, high, x, sums, std::make_integer_sequence<int, Kind::kRuns>());
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
      for (int j = 0; j < kTokenTiles; ++j) {
        x[j] = {0, 0, 0, 0};
        if (has_x_) x[j] = *reinterpret_cast<const uint4*>(memory_ + x_of[j] + s * kSlabBytes);
      }
      product.slab(sums, low + s * Kind::kWords, high + s * Kind::kWords, x);
    }
  }

  template <int... kRun>
  __device__ __forceinline__ void runs(const std::uint8_t* parameters, int tile, int block, int first,
                                       const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                       const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4],
                                       std::integer_sequence<int, kRun...>) {
    constexpr int kColumns = Kind::kColumns;
    (run<kRun>(parameters, tile, block, first + kRun * kColumns, low, high, x, sums), ...);
  }

  // A unit of a box, kFlush slabs that have one scale a channel, or as many units as a token has columns: from unit `first`
  // of the block on. Columns 2t and 2t + 1, whose sums a thread has, are two tokens', or a token's two units; these are
  // added up in sums[…][0][0] and [2].
  template <int kRun>
  __device__ __forceinline__ void run(const std::uint8_t* parameters, int tile, int block, int first,
                                      const std::uint32_t (&low)[8], const std::uint32_t (&high)[8],
                                      const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4]) {
    constexpr int kColumns = Kind::kColumns;
    const int t = static_cast<int>(lane_ % 4);
    P product;
    if (a_.groups.zero_point != nullptr) {
      const int n = first_channel_ + tile * step_ + static_cast<int>(channel_), unit = t * kColumns / 4;
      const std::uint8_t* zero_points = parameters + Kind::kZeroPoints + channel_ * zero_point_pitch_;
      using W = cuda::Weights<X, Kind::kBits>;
      product.low.set(W::prepared(zero_point_in(zero_points, n, block, first + unit)));
      product.high.set(W::prepared(zero_point_in(zero_points + 8 * zero_point_pitch_, n + 8, block, first + unit)));
    }
    float part[kTokenTiles][2][4] = {};
    slabs<kRun * Kind::kRunSlabs, Kind::kRunSlabs>(product, low, high, x, part);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const std::uint8_t* of_channel = parameters + channel_ * Kind::kScalePitch;
      const float scales[2] = {scale_in(of_channel, first, t, column),
                               scale_in(of_channel + 8 * Kind::kScalePitch, first, t, column)};
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int i = 2 * half + column;
          float& sum = sums[j][0][kColumns == 1 ? i : 2 * half];
          sum = __fmaf_rn(part[j][0][i] + part[j][1][i], scales[half], sum);
        }
      }
    }
  }

  // A channel's scale for a column of thread t of a row, of units from `first` on.
  __device__ __forceinline__ static float scale_in(const std::uint8_t* of_channel, int first, int t, int column) {
    if constexpr (Kind::kShortScales) {
      const int pair = Kind::kColumns == 1 ? first / 2 * 2 : first + 2 * t % Kind::kColumns;
      const auto word = *reinterpret_cast<const std::uint32_t*>(of_channel + pair * Kind::kScaleBytes);
      const int half = Kind::kColumns == 1 ? first % 2 : column;
      return cuda::Element<typename Kind::Scale>::value(half == 0 ? word & 0xffff : word >> 16);
    } else {
      return reinterpret_cast<const float*>(of_channel)[first + (2 * t + column) % Kind::kColumns];
    }
  }

  // That of channel n and a unit of the block, from where the channel's begin.
  __device__ __forceinline__ std::uint32_t zero_point_in(const std::uint8_t* of_channel, int n, int block, int unit) const {
    if (Kind::kCopiesTogether && a_.groups.together) return of_channel[unit];
    return of_channel[unit * 4 + cuda::byte_in_word(a_.groups.zero_point_at(n, group_of<Kind>(a_.groups, block, unit)))];
  }

  // Scales and zero points of a block's units, by all threads of the warp.
  __device__ __forceinline__ void ask_parameters(int tile, int block, std::uint32_t full) {
    const Groups& groups = a_.groups;
    const int channel = static_cast<int>(lane_ % kChannels), n = min(first_channel_ + tile * step_ + channel, a_.N - 1);
    const std::uint32_t slot = ptx::shared_address(memory_) + parameters_ + asked_slot_ * parameter_bytes_;
    const std::uint32_t scales = slot + channel * Kind::kScalePitch;
    const std::uint32_t zero_points = slot + Kind::kZeroPoints + channel * zero_point_pitch_;
    asked_slot_ = asked_slot_ == a_.stages ? 0 : asked_slot_ + 1;
    const std::uint8_t* scale = groups.scale + n * groups.scale_stride;
    constexpr int kScaleBytes = Kind::kScaleBytes, kCopied = Kind::kCopied, kWord = 4 / kScaleBytes;
    // Lane 16 u + c has channel c, and of its copies every second.
    const int first = static_cast<int>(lane_ / kChannels);
    if (Kind::kCopiesTogether && groups.together) {
#pragma unroll
      for (int i = 0; i < Kind::kUnits; i += 2 * kCopied) {
        const int unit = i + first * kCopied, group = min(block * Kind::kUnits + unit, groups.last + 1 - kCopied);
        if (unit >= Kind::kUnits) break;
        cuda::copy_cached_async<kCopied * kScaleBytes>(scales + unit * kScaleBytes, scale + group * kScaleBytes);
        if (groups.zero_point == nullptr) continue;
#pragma unroll
        for (int j = 0; j < kCopied; j += 4) {
          cuda::copy4_async(zero_points + unit + j, groups.zero_point_at(n, group + j), 4);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < Kind::kUnits; i += 2 * kWord) {
        const int unit = i + first * kWord, group = min(group_of<Kind>(groups, block, unit), groups.last + 1 - kWord);
        if (unit >= Kind::kUnits) break;
        cuda::copy4_async(scales + unit * kScaleBytes, scale + group * kScaleBytes, 4);
        if (groups.zero_point == nullptr) continue;
#pragma unroll
        for (int j = 0; j < kWord; ++j) {
          cuda::copy_word_around_async(zero_points + (unit + j) * 4, groups.zero_point_at(n, group + j),
                                       groups.zero_point_at(a_.N - 1, groups.last));
        }
      }
    }
    sm90::barrier_arrive_when_copied(full);
  }

  // The next block into a place of the ring, if there is one more.
  __device__ __forceinline__ void ask(int stage) {
    if (asked_ >= end_) return;
    if (Kind::kStartsNextLate && asked_ >= end_ - a_.next_before) ptx::launch_dependents();
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
  bool has_x_;  // what this thread multiplies is of its column's group
  int first_channel_, step_, ring_;
  std::uint32_t full_;
  // Scales and zero points: a ring of one place more, since they are read where they stand, after the next are asked for.
  int parameters_, parameter_bytes_, zero_point_pitch_;
  int next_, asked_, end_, stage_ = 0, slot_ = 0, asked_slot_ = 0;
  std::uint32_t phase_ = 0;
};

}  // namespace octavo::decode
