// What the parts of decode.cuh agree on: what is multiplied, in which pieces, and where these stand in shared memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "gemm/cuda/epilogue.cuh"
#include "gemm/cuda/s8_w8_decode.h"

namespace octavo::decode {

inline constexpr int kMaxTokens = kDecodeMaxTokens;
inline constexpr int kChannels = 16;  // of a tile
inline constexpr int kBoxRow = 128;   // bytes of a channel in a box: as many as the copy engine swizzles together
inline constexpr int kBoxBytes = kChannels * kBoxRow;
inline constexpr int kBoxes = 2;  // of a block, which is copied at once
inline constexpr int kBlockBytes = kBoxes * kBoxBytes;

// Barriers (bar) of the warps that multiply, while they make x, and of all, when it is there; of pairs, when it has been
// asked for.
inline constexpr int kXIsMade = 1, kXIsThere = 2;

// DecodeArguments::next_before: at the kernel's end, at once, and when it has waited for the one in front.
inline constexpr int kNextAtEnd = -2, kNextAtOnce = -1, kNextAfterWait = 0;

inline constexpr int kMaxStages = 4;   // of a ring
inline constexpr int kMaxBuffers = 4;  // of tiles' sums

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
  const std::uint8_t* scale;
  std::int64_t scale_stride;       // bytes from a channel to the next; 0 per tensor
  const std::uint8_t* zero_point;  // nullptr: none
  std::int64_t zero_point_stride;
  Divisor size;
  int last;       // of a channel
  bool together;  // those of Kind::kCopied units are neighbours, aligned, and copied together
#if defined(__CUDACC__)
  __device__ __forceinline__ const std::uint8_t* zero_point_at(int n, int group) const {
    return zero_point + n * zero_point_stride + group;
  }
#endif
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
  // The next kernel starts when so many of a CTA's blocks are left to ask for, and a CTA with fewer tiles than others stays
  // for about as long as they have one more: see decode.cuh. Or as said above.
  int next_before;
  bool whole_boxes;          // a channel is: a block's are copied together
  int stages;                // of a warp's ring
  int early_stages;          // asked for before x
  int buffers;               // of tiles' sums, a power of two
  int blocks;                // of a tile
  int tiles, with_one_more;  // of a CTA, and how many CTAs have one more
  Divisor by_blocks;
  Divisor by_vectors;  // of x, where it is quantized
};

// A number's digit, of base 256, from the most significant on: x of 16 bits may be multiplied as its digits
// (decode_digits.cuh).
struct Digit {
  std::int8_t value;
};
inline constexpr int kDigits = 4;
inline constexpr float kDigitUnit = 1.0f / 256;  // of a digit in that of the one in front

// What a kernel multiplies: x of type X, which comes as Source, as it is or of 16 bits to be quantized or split into digits;
// kBits of a weight; kFlush slabs from one group's sums to the next, 0 where all of K has one scale; up to kTokenTiles times
// 8 / kTokenColumns tokens.
//
// A product of the tensor cores has eight columns. Where groups are short and tokens few, a token takes kColumns of them,
// one for each of so many groups: with its x of this group, and zeros elsewhere. So one product has the sums of several
// groups apart from each other, and weights are read and sums are scaled several groups at a time. A token that is split has
// kDigits columns, or as many for each of kColumns groups.
//
// Scales of groups are of type Scale, float or X. Those of 16 bits are of groups that are units, an even number of them.
//
// kPairs: of CTAs, for which the copy engine copies x (decode_pairs.cuh).
template <class X_, int kBits_, int kFlush_, int kTokenTiles_, class Source_ = X_, int kColumns_ = 1, class Scale_ = float,
          bool kPairs_ = false>
struct Kind {
  using X = X_;
  using Source = Source_;
  using Scale = Scale_;
  static constexpr bool kInteger = std::is_same_v<X, std::int8_t>, kSplits = std::is_same_v<X, Digit>;
  static constexpr bool kQuantizes = kInteger && !std::is_same_v<X, Source>;
  static constexpr int kBits = kBits_, kFlush = kFlush_, kTokenTiles = kTokenTiles_, kColumns = kColumns_;
  static constexpr int kTokenColumns = kColumns * (kSplits ? kDigits : 1);  // of a token in all
  static constexpr bool kPairs = kPairs_;
  static_assert(kTokenColumns == 1 || kTokenTiles == 1);
  static_assert(!kSplits || (kBits == 4 && kFlush * kColumns >= 4));
  static_assert(!kPairs || (kBits == 8 && kFlush == 0 && !kQuantizes));
  // Where next_before may say so: where groups are multiplied, unless as digits that takes no longer late.
  static constexpr bool kStartsNextLate = kSplits ? kFlush == 4 : kFlush > 0;
  static constexpr int kWarps = 8;  // that multiply
  static constexpr int kMultiplying = kWarps * 32, kThreads = kMultiplying + 32;
  static constexpr int kBlockK = kBoxes * kBoxRow * 8 / kBits;
  static constexpr int kSlabK = kInteger ? 64 : 32;
  static constexpr int kSlabBytes = kSplits ? kSlabK * kDigits : 64;  // of a token
  static constexpr int kSlabs = kBlockK / kSlabK;                     // of a block
  static constexpr int kUnits = kFlush == 0 ? 1 : kSlabs / kFlush;
  // Units that have columns of the same products.
  static constexpr int kRunSlabs = kFlush * kColumns;
  static constexpr int kWords = kSlabK * kBits / 128;  // of a channel in a slab, of which a thread has so many
  // A thread reads 16 bytes of a channel at a time, those of so many slabs: what it multiplies as slab i of them is its i-th
  // part. Of groups it reads no more than a run's.
  static constexpr int kTogether = kFlush == 0 ? 4 / kWords : std::min(kRunSlabs, 4 / kWords);
  // Bytes of a channel that a thread reads at a time.
  static constexpr int kRead = 4 * kWords * kTogether;
  // In shared memory, a channel's scales of a block stand together, and behind all channels' are the zero points: as they
  // are in memory, or of each the aligned word around it. Pitches, bytes from a channel to the next, keep off the same
  // banks.
  static constexpr int kScaleBytes = static_cast<int>(sizeof(Scale));
  static constexpr bool kShortScales = kScaleBytes == 2;
  static constexpr int kScalePitch = kUnits * kScaleBytes + (kUnits * kScaleBytes >= 32 ? 16 : 0);
  static constexpr int kZeroPoints = kChannels * kScalePitch;
  // Of so many units they are copied together, where that is worth the code.
  static constexpr int kCopied = kShortScales ? std::min(kUnits, 8) : 4;
  static constexpr bool kCopiesTogether = kUnits >= (kShortScales ? 4 : 8);
  __host__ __device__ static int zero_point_pitch(const Groups& groups) {
    return (groups.together ? kUnits : 4 * kUnits) + 4;
  }
  __host__ __device__ static int blocks(int K) { return (K + kBlockK - 1) / kBlockK; }
  // Where a token has several columns of a product, threads of a column read zeros in place of the x of other groups: as
  // many as a block's, and a row of banks.
  static constexpr int kZeroBytes = kColumns == 1 ? 0 : kSlabs * kSlabBytes + 128;
  // Bytes of a token's x in a block, and the blocks that are copied together for pairs.
  static constexpr int kBlockBytesOfX = kSlabs * kSlabBytes, kPieceBlocks = kWarps;
  __host__ __device__ static int pieces(int blocks) { return (blocks + kPieceBlocks - 1) / kPieceBlocks; }
  // Where a thread's x of a slab begins, from that of a block's first: by slabs, or as it comes, all of kTogether slabs
  // together.
  static constexpr int kThreadBytesOfX = kPairs ? kTogether * 16 : 16;
  __host__ __device__ static constexpr int slab_place(int slab) {
    return kPairs ? slab / kTogether * (kTogether * kSlabBytes) + slab % kTogether * 16 : slab * kSlabBytes;
  }
  // Bytes from a token to the next in shared memory: such that two of them read together touch different banks. (Digits
  // that are read together are of one token.)
  __host__ __device__ static int x_pitch(int blocks) {
    constexpr int kApart = kSplits ? 0 : kPairs && kTogether > 1 ? 16 : 64;
    return (blocks * kBlockBytesOfX + 127) / 128 * 128 + kApart;
  }
};

#if defined(__CUDACC__)
// The group of a unit of a block.
template <class Kind>
__device__ __forceinline__ int group_of(const Groups& groups, int block, int unit) {
  const int k = block * Kind::kBlockK + unit * (Kind::kFlush * Kind::kSlabK);
  const int group = Kind::kShortScales ? block * Kind::kUnits + unit : groups.size.divide(k);
  return min(group, groups.last);  // past K, x is 0
}
#endif

// Shared memory, in bytes from a multiple of the swizzle's pattern.
template <class Kind>
struct Shared {
  static constexpr int kPattern = 1024;
  int sums_bytes;       // of a warp: by rows of a product, two tokens together
  int parameter_bytes;  // of a block: scales and zero points of groups
  int stages, parameters, barriers, sums_barriers, x_barriers, scales, sums, zeros, x, bytes;

  __host__ __device__ explicit Shared(const DecodeArguments& a) {
    stages = a.stages;
    sums_bytes = kChannels * ((a.M + 1) / 2 * 2) * 4;
    const int zero_points = a.groups.zero_point == nullptr ? 0 : kChannels * Kind::zero_point_pitch(a.groups);
    parameter_bytes = Kind::kFlush == 0 ? 0 : Kind::kZeroPoints + zero_points;
    parameters = ring_of(Kind::kWarps);
    barriers = parameters_of(Kind::kWarps);
    sums_barriers = barriers_of(Kind::kWarps);
    x_barriers = sums_barriers + 2 * a.buffers * 8;
    scales = x_barriers + (Kind::kPairs ? Kind::pieces(a.blocks) * 8 : 0);
    // Of tokens quantized here, and their magnitudes; or of each token's blocks of digits.
    const int scale_bytes = Kind::kQuantizes ? 8 * kMaxTokens : Kind::kSplits ? 4 * a.M * a.blocks : 0;
    sums = (scales + scale_bytes + 127) / 128 * 128;
    zeros = sums + a.buffers * Kind::kWarps * sums_bytes;
    x = zeros + Kind::kZeroBytes;
    bytes = kPattern + x + a.M * Kind::x_pitch(a.blocks);
  }

  // Where a warp's begin: its ring, that of the parameters, which has one place more, and the ring's barriers.
  __host__ __device__ int ring_of(int warp) const { return warp * stages * kBlockBytes; }
  __host__ __device__ int parameters_of(int warp) const { return parameters + warp * (stages + 1) * parameter_bytes; }
  __host__ __device__ int barriers_of(int warp) const { return barriers + warp * stages * 8; }
};

}  // namespace octavo::decode
