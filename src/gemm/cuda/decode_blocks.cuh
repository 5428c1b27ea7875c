// A warp's way through the weights: multiplying one block after the other. See decode.cuh.
#pragma once

#include <utility>

#include "core/half.cuh"
#include "gemm/cuda/decode_ask.cuh"
#include "gemm/cuda/decode_digits.cuh"
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

  __device__ __forceinline__ Blocks(const DecodeArguments& a, const Shared<Kind>& shared, const std::uint8_t* memory,
                                    Asker<Kind>& asker, int warp, unsigned lane, int first_tile, int step)
      : a_(a),
        memory_(memory),
        asker_(asker),
        lane_(lane),
        has_x_(Kind::kColumns == 1 ||
               lane / 4 * Kind::kColumns / Kind::kTokenColumns % Kind::kColumns == lane % 4 * Kind::kColumns / 4),
        row_(static_cast<int>(channel_of(lane / 4))),
        first_(first_tile * kChannels),
        step_(step * kChannels),
        rows_(shared.ring_of(warp) + row_ * kBoxRow),
        of_thread_(lane % 4 * Kind::kRead ^ row_ * 16),
        full_(ptx::shared_address(memory) + shared.barriers_of(warp)),
        pieces_full_(ptx::shared_address(memory) + shared.x_barriers),
        parameters_(shared.parameters_of(warp)),
        parameter_bytes_(shared.parameter_bytes),
        zeros_(shared.zeros),
        digit_scales_(shared.scales),
        next_(warp) {}

  // Whether the next block is of a tile.
  __device__ __forceinline__ bool next_is_of(int tile) const { return next_ < (tile + 1) * a_.blocks; }

  // Adds the products of the next block with x, which is a tile's. Its place in the ring is asked for again at once.
  __device__ __forceinline__ void multiply(int tile, const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) {
    const int block = next_ - tile * a_.blocks;
    if constexpr (Kind::kPairs) {
      for (; pieces_ * Kind::kPieceBlocks <= block; ++pieces_) sm90::barrier_wait(pieces_full_ + pieces_ * 8, 0);
    }
    sm90::barrier_wait(full_ + stage_ * 8, phase_);
    const Place at = {tile, block, stage_, memory_ + rows_ + stage_ * kBlockBytes,
                      memory_ + parameters_ + slot_ * parameter_bytes_};
    next_ += Kind::kWarps;
    if (++stage_ == a_.stages) {
      stage_ = 0;
      phase_ ^= 1;
    }
    slot_ = slot_ == a_.stages ? 0 : slot_ + 1;
    if (Kind::kFlush > 0 && a_.groups.zero_point != nullptr) {
      parts<true>(at, x_of, sums);
    } else {
      parts<false>(at, x_of, sums);
    }
  }

 private:
  // Of a block, what is in registers at a time: all of it, so that products of its groups overlap, where registers suffice.
  static constexpr int kParts =
      Kind::kTokenTiles == 1 && (Kind::kFlush == 4 || Kind::kColumns == 4 || Kind::kSplits) ? 1 : 2;
  static constexpr int kPartBoxes = kBoxes / kParts, kPartSlabs = Kind::kSlabs / kParts;

  // Where a block stands.
  struct Place {
    int tile, number, stage;
    const std::uint8_t* rows;  // this thread's
    const std::uint8_t* parameters;
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

  template <bool kZeros>
  __device__ __forceinline__ void parts(const Place& at, const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) {
    // So many short groups take so many instructions that two parts' would not be found in the cache of them.
#pragma unroll(Kind::kFlush == 1 && Kind::kColumns == 1 ? 1 : kParts)
    for (int i = 0; i < kParts; ++i) part<kZeros>(i, at, x_of, sums);
  }

  // A part of a block. When the last one is in registers, the block's place is asked for again.
  template <bool kZeros>
  __device__ __forceinline__ void part(int number, const Place& at, const int (&x_of)[kTokenTiles],
                                       Sum (&sums)[kTokenTiles][2][4]) {
    constexpr int kLoads = 32 / Kind::kRead, kLoadWords = Kind::kRead / 4, kBoxWords = kLoads * kLoadWords;
    std::uint32_t low[kPartBoxes * kBoxWords], high[kPartBoxes * kBoxWords];
#pragma unroll
    for (int box = 0; box < kPartBoxes; ++box) {
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const std::uint8_t* p =
            at.rows + (number * kPartBoxes + box) * kBoxBytes + (of_thread_ ^ unsigned{4 * Kind::kRead} * i);
        load(low + box * kBoxWords + i * kLoadWords, p);
        load(high + box * kBoxWords + i * kLoadWords, p + 8 * kBoxRow);
      }
    }
    if (number == kParts - 1) {
      std::uint32_t read = 0;  // a word of every load
#pragma unroll
      for (int i = 0; i < kPartBoxes * kBoxWords; i += kLoadWords) read |= low[i] | high[i];
      __syncwarp();  // all have read the block
      asker_.ask(at.stage, read);
    }
    int x[kTokenTiles];
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      x[j] = x_of[j] + at.number * Kind::kBlockBytesOfX + number * (kPartSlabs * Kind::kSlabBytes);
      // In other banks than x of the threads that read together with this one.
      if (Kind::kColumns > 1 && !has_x_) x[j] = zeros_ + ((x_of[j] & 127) ^ (Kind::kSplits ? 0 : 64));
    }
    if constexpr (Kind::kSplits) {
      digits<kZeros>(at, low, high, x[0], sums[0][0], std::make_integer_sequence<int, Kind::kUnits / Kind::kColumns>());
    } else if constexpr (Kind::kFlush == 0) {
      slabs<0, kPartSlabs>(P(), low, high, x, sums);
    } else {
      constexpr int kPartUnits = Kind::kUnits / kParts;
      runs<kZeros>(at, number * kPartUnits, low, high, x, sums,
                   std::make_integer_sequence<int, kPartUnits / Kind::kColumns>());
    }
  }

  // kCount slabs of a part, whose x this is, from kFirst on.
  template <int kFirst, int kCount>
  __device__ __forceinline__ void slabs(const P& product, const std::uint32_t* low, const std::uint32_t* high,
                                        const int (&x_of)[kTokenTiles], Sum (&sums)[kTokenTiles][2][4]) const {
#pragma unroll
    for (int s = kFirst; s < kFirst + kCount; ++s) {
      uint4 x[kTokenTiles];
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) {
        x[j] = *reinterpret_cast<const uint4*>(memory_ + x_of[j] + Kind::slab_place(s));
      }
      product.slab(sums, low + s * Kind::kWords, high + s * Kind::kWords, x);
    }
  }

  template <bool kZeros, int... kRun>
  __device__ __forceinline__ void runs(const Place& at, int first, const std::uint32_t* low, const std::uint32_t* high,
                                       const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4],
                                       std::integer_sequence<int, kRun...>) {
    (run<kZeros, kRun>(at, first + kRun * Kind::kColumns, low, high, x, sums), ...);
  }

  // A unit of a block that has one scale a channel, of kFlush slabs, or as many units as a token has columns: from unit
  // `first` of the block on. Columns 2t and 2t + 1, whose sums a thread has, are two tokens', or a token's two units; these
  // are added up in sums[…][0][0] and [2].
  template <bool kZeros, int kRun>
  __device__ __forceinline__ void run(const Place& at, int first, const std::uint32_t* low, const std::uint32_t* high,
                                      const int (&x)[kTokenTiles], float (&sums)[kTokenTiles][2][4]) {
    constexpr int kColumns = Kind::kColumns;
    const int t = static_cast<int>(lane_ % 4);
    P product;
    if constexpr (kZeros) {
      const int n = first_ + at.tile * step_ + row_, unit = first + t * kColumns / 4;
      const int pitch = Kind::zero_point_pitch(a_.groups);
      const std::uint8_t* zero_points = at.parameters + Kind::kZeroPoints + row_ * pitch;
      using W = cuda::Weights<X, Kind::kBits>;
      product.low.set(W::prepared(zero_point_in(zero_points, n, at.number, unit)));
      product.high.set(W::prepared(zero_point_in(zero_points + 8 * pitch, n + 8, at.number, unit)));
    }
    float part[kTokenTiles][2][4] = {};
    slabs<kRun * Kind::kRunSlabs, Kind::kRunSlabs>(product, low, high, x, part);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      const std::uint8_t* of_channel = at.parameters + row_ * Kind::kScalePitch;
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

  // A block's products with digits of x, whose columns 2t and 2t + 1 are two digits of one number.
  template <bool kZeros, int... kRun>
  __device__ __forceinline__ void digits(const Place& at, const std::uint32_t* low, const std::uint32_t* high, int x,
                                         float (&sums)[4], std::integer_sequence<int, kRun...>) {
    float block[4] = {};
    (digit_run<kZeros, kRun>(at, low, high, x, block), ...);
    // Of the token whose digits this thread's columns are.
    const int token = min(static_cast<int>(lane_ % 4) * 2 / Kind::kTokenColumns, a_.M - 1);
    const float scale = *reinterpret_cast<const float*>(memory_ + digit_scales_ + (token * a_.blocks + at.number) * 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = __fmaf_rn(block[i], scale, sums[i]);
  }

  // As run().
  template <bool kZeros, int kRun>
  __device__ __forceinline__ void digit_run(const Place& at, const std::uint32_t* low, const std::uint32_t* high, int x,
                                            float (&block)[4]) {
    constexpr int kFirst = kRun * Kind::kColumns;
    const int t = static_cast<int>(lane_ % 4), unit = kFirst + t * Kind::kColumns / 4;
    constexpr std::int32_t kNone = kZeros ? 0 : kMagicBits;
    std::int32_t sums[4] = {kNone, kNone, kNone, kNone}, of_zeros[4] = {};
    std::uint32_t zero_low = 0, zero_high = 0;
    if constexpr (kZeros) {
      const int n = first_ + at.tile * step_ + row_;
      const int pitch = Kind::zero_point_pitch(a_.groups);
      const std::uint8_t* zero_points = at.parameters + Kind::kZeroPoints + row_ * pitch;
      zero_low = P::prepared(zero_point_in(zero_points, n, at.number, unit));
      zero_high = P::prepared(zero_point_in(zero_points + 8 * pitch, n + 8, at.number, unit));
    }
#pragma unroll
    for (int s = kRun * Kind::kRunSlabs; s < (kRun + 1) * Kind::kRunSlabs; s += 2) {
      const auto v = *reinterpret_cast<const uint4*>(memory_ + (x ^ digits_moved(s / 2)) + s * Kind::kSlabBytes);
      P::template slab<kZeros>(sums, low[s], high[s], v.x, v.y, flip_);
      P::template slab<kZeros>(sums, low[s + 1], high[s + 1], v.z, v.w, flip_);
      if constexpr (kZeros) {
        decode::multiply(std::uint8_t(), of_zeros, zero_low, zero_high, zero_low, zero_high, v.x, v.y);
        decode::multiply(std::uint8_t(), of_zeros, zero_low, zero_high, zero_low, zero_high, v.z, v.w);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* of_channel = at.parameters + (row_ + 8 * half) * Kind::kScalePitch;
      const float scale = Kind::kColumns == 1 ? scale_in(of_channel, kFirst, t, 0) : scale_at(of_channel, unit);
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const float sum = kZeros ? __int2float_rn(sums[i] - 16 * of_zeros[i]) : __int_as_float(sums[i]) - kMagic;
        block[i] = __fmaf_rn(sum, scale, block[i]);
      }
    }
  }

  __device__ __forceinline__ static float scale_at(const std::uint8_t* of_channel, int unit) {
    return cuda::to_float(reinterpret_cast<const typename Kind::Scale*>(of_channel)[unit]);
  }

  // A channel's scale for a column of thread t of a row, of units from `first` of the block on.
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

  const DecodeArguments& a_;
  const std::uint8_t* memory_;
  const std::uint32_t flip_ = ptx::in_register(0x80808080);
  Asker<Kind>& asker_;
  unsigned lane_;
  bool has_x_;  // what this thread multiplies is of its column's group
  int row_, first_, step_, rows_;
  unsigned of_thread_;
  std::uint32_t full_, pieces_full_;
  int pieces_ = 0;  // of x, that are there
  int parameters_, parameter_bytes_;
  int zeros_, digit_scales_;
  int next_, stage_ = 0, slot_ = 0;
  std::uint32_t phase_ = 0;
};

}  // namespace octavo::decode
