// How decode_kernel is launched: how much its rings hold, what they ask for before x, and when the next kernel starts. All
// measured, on an H100 and an H200.
#pragma once

#include <algorithm>

#include "core/ceil_div.h"
#include "gemm/cuda/decode_kind.cuh"

namespace octavo::decode {

// Shared memory that a CTA may have: alone on its multiprocessor, or beside another. And what no three can have.
inline constexpr int kMaxShared = kDecodeSharedBytes;
inline constexpr int kSharedOfTwo = (228 / 2 - 1) * 1024;
inline constexpr int kMoreThanAThird = 228 / 3 * 1024 + 1024;

// With so many stages.
template <class Kind>
DecodeArguments planned(DecodeArguments a, int stages) {
  a.stages = stages;
  a.buffers = a.M <= 4 ? 4 : 2;
  a.blocks = Kind::blocks(a.K);
  a.by_blocks = Divisor(static_cast<unsigned>(a.blocks));
  a.by_vectors = Divisor(static_cast<unsigned>(std::max(a.K / 8, 1)));
  return a;
}

// One CTA a multiprocessor.
inline int tiles_of(const DecodeArguments& d) { return ceil_div(d.N, kChannels); }
inline int grid_of(const DecodeArguments& d, int sms) { return std::min(sms, tiles_of(d)); }

// Blocks of weights that a CTA has at most, and in how many rounds its warps take so many.
template <class Kind>
int most_blocks(const DecodeArguments& d, int sms) {
  return ceil_div(tiles_of(d), grid_of(d, sms)) * Kind::blocks(d.K);
}
template <class Kind>
int rounds_of(int blocks) {
  return ceil_div(blocks, Kind::kWarps);
}

// Whether it gains to split x into digits: where a warp has more blocks of weights than of x, and x is not so large, of four
// bytes a value, that what it takes from the ring costs more.
template <class Kind>
bool split_gains(const DecodeArguments& d, int sms) {
  constexpr int kTooManyValues = 1 << 14;
  return d.K % 8 == 0 && d.M * d.K < kTooManyValues &&
         rounds_of<Kind>(most_blocks<Kind>(d, sms)) > rounds_of<Kind>(d.M * Kind::blocks(d.K));
}

struct Plan {
  DecodeArguments arguments;
  int grid, shared_bytes;
};

template <class Kind>
Plan plan_of(const DecodeArguments& d, int sms, bool small_kernel_next) {
  constexpr int kFewRounds = 5, kManyRounds = 10, kLongRun = 64, kLongRow = 16;  // runs and rows in blocks
  constexpr int kNextBefore = 9, kNextButOneBefore = 28;
  const int blocks = most_blocks<Kind>(d, sms), rounds = rounds_of<Kind>(blocks);
  const bool few = rounds < kFewRounds, long_run = Kind::kFlush == 0 && blocks > kLongRun;
  const bool long_rows = Kind::blocks(d.K) > kLongRow;
  const auto with_stages = [&](int stages, int most) {
    stages = std::min(stages, rounds);
    while (stages > 1 && Shared<Kind>(planned<Kind>(d, stages)).bytes > most) --stages;
    return planned<Kind>(d, stages);
  };

  // Where x and two stages (or all that a CTA copies) fit beside as much again, the next kernel's stand beside it; but long
  // runs of blocks, which a larger ring serves better, have the multiprocessor alone.
  DecodeArguments p = with_stages(3, kSharedOfTwo);
  const bool alone = long_run || Shared<Kind>(p).bytes > kSharedOfTwo || p.stages < std::min(2, rounds);
  if (alone) p = with_stages(rounds <= 2 ? 1 : !long_run ? 2 : long_rows ? 4 : 3, kMaxShared);
  // What a CTA does not need it asks for too, so that no third one comes, and CTAs of one kernel are spread evenly.
  const int bytes = std::max(Shared<Kind>(p).bytes, alone ? kSharedOfTwo + 1024 : kMoreThanAThird);

  // A next kernel that starts when all of ours is on its way would only keep x waiting; and so it does with one token in few
  // rounds, where x takes longest, unless it is quantized. (One token's digits in two rounds are multiplied so soon that
  // starting early gains more.) It starts late (decode.cuh) with weights in groups, not in few rounds of blocks, of which it
  // would wait for too many, nor in many. If it is a small one, which only lets the product behind it start, also in many
  // rounds, and earlier: in fewer than eight or so that is at once.
  const bool in_ring = p.stages == rounds, two_rounds = in_ring && rounds == 2 && !alone;
  const bool soon = Kind::kSplits && Kind::kFlush == 4 && d.M == 1 && two_rounds;
  const bool x_takes_longest = few && d.M == 1 && !Kind::kQuantizes;
  p.next_before = alone || soon || (!in_ring && !x_takes_longest) ? kNextAtOnce : kNextAfterWait;
  if (Kind::kStartsNextLate && !alone && !few && (small_kernel_next || rounds <= kManyRounds)) {
    p.next_before = small_kernel_next ? kNextButOneBefore : kNextBefore;
  }

  // x waits behind what a ring asks for. So where a CTA has little else to wait for, it asks for a part of it only behind x.
  p.early_stages = p.stages;
  if (Kind::kFlush == 0) {
    if (long_run && !long_rows) p.early_stages = std::min(p.stages, 2);
    if (few && !alone) p.early_stages = d.M == 1 ? std::max(p.stages - 1, 1) : 1;
    if (Kind::kQuantizes && d.M == 1 && !alone) p.early_stages = 1;
  } else if (two_rounds && !soon && d.M <= 2 && (Kind::kFlush == 4 || Kind::kSplits)) {
    p.early_stages = 1;
  }
  return {p, grid_of(d, sms), bytes};
}

}  // namespace octavo::decode
