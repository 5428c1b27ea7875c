// How decode_kernel is launched: how much its rings hold, what they ask for before x, and when the next kernel starts. All
// measured, on an H100 and an H200.
#pragma once

#include <algorithm>
#include <optional>

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
  a.buffers = a.M <= 4 ? kMaxBuffers : kMaxBuffers / 2;
  a.blocks = Kind::blocks(a.K);
  a.by_blocks = Divisor(static_cast<unsigned>(a.blocks));
  a.by_vectors = Divisor(static_cast<unsigned>(std::max(a.K / 8, 1)));
  return a;
}

inline int tiles_of(const DecodeArguments& d) { return ceil_div(d.N, kChannels); }

// How tiles are divided among CTAs, one a multiprocessor; what a CTA has to do at most: blocks of weights, and in how many
// rounds its warps take so many.
template <class Kind>
struct Work {
  int grid, tiles, with_one_more;
  int blocks, rounds;
  bool few, long_rows, long_run;
  bool two_full_rounds;
  bool most_end_early;  // fewer than half of the CTAs have a tile more than the others
  bool x_is_quick;      // every warp splits a block of x at most, and has many of weights
  Work(const DecodeArguments& d, int sms)
      : grid(std::min(sms, tiles_of(d))),
        tiles(tiles_of(d) / grid),
        with_one_more(tiles_of(d) % grid),
        blocks((tiles + (with_one_more > 0 ? 1 : 0)) * Kind::blocks(d.K)),
        rounds(ceil_div(blocks, Kind::kWarps)),
        few(rounds < 5),
        long_rows(Kind::blocks(d.K) > 16),
        long_run((Kind::kFlush == 0 || (Kind::kBits == 8 && long_rows)) && blocks > 64),
        two_full_rounds(blocks == 2 * Kind::kWarps),
        most_end_early(with_one_more > 0 && with_one_more * 2 < grid),
        x_is_quick(Kind::kSplits && !few && d.M * Kind::blocks(d.K) <= Kind::kWarps) {}
};

// Whether it gains to split x into digits: where a warp has more blocks of weights than of x, or of two tokens two of both,
// which a ring holds beside another CTA; and x is not so large, of four bytes a value, that what it takes from the ring
// costs more.
template <class Kind>
bool split_gains(const DecodeArguments& d, int sms) {
  constexpr int kTooManyValues = 1 << 14;
  if (d.K % 8 != 0 || d.M * d.K >= kTooManyValues) return false;
  const Work<Kind> work(d, sms);
  const int blocks_of_x = ceil_div(d.M * Kind::blocks(d.K), Kind::kWarps);
  if (work.rounds > blocks_of_x) return true;
  const bool two_of_both = d.M == 2 && work.two_full_rounds && blocks_of_x == 2;
  return two_of_both && Shared<Kind>(planned<Kind>(d, 2)).bytes <= kSharedOfTwo;
}

struct Plan {
  DecodeArguments arguments;
  int grid, shared_bytes;

  // Whether a CTA has its multiprocessor alone.
  bool alone() const { return shared_bytes > kSharedOfTwo; }
};

inline constexpr int kManyRounds = 10;

// x of more values takes longer to quantize than a stage of weights takes to come.
inline constexpr int kMuchToQuantize = 3 << 12;

// Whether weights that the next kernel asks for would be in front of x that takes longer than they do.
template <class Kind>
bool x_takes_longest(const DecodeArguments& p, const Work<Kind>& work) {
  if (Kind::kQuantizes) return p.M > 2 || p.M * p.K > kMuchToQuantize;
  if (p.M == 1) return Kind::kFlush > 0 && Kind::kBits == 4 ? work.rounds <= 3 : work.few;
  return Kind::kFlush > 0 && !Kind::kSplits && work.rounds == 3;
}

// When the next kernel starts, DecodeArguments::next_before, of a CTA that stands beside another, or has one round. All
// measured:
// - late (decode.cuh) with weights in groups; not in few rounds of blocks, of which it would wait for too many, nor in many,
//   nor where x is quick. If it is a small one, which only lets the product behind it start, also in many rounds, and
//   earlier: in fewer than eight or so that is at once. One token's digits are as fast at once in five rounds and more,
//   where late was slower at times (8192 x 8192 9.9 to 11.6 µs, at once 10.0; 5120 x 8192 7.8, at once 7.0).
// - at its end behind x that another kernel has quantized, where most CTAs end early: started before, that kernel's CTAs
//   would keep the next product's from some SMs, and these go where ours have ended, two to one (5120 x 5120, 4 tokens: 9.3
//   µs instead of 12.7).
// - when ours has waited, where a ring holds all, so that the next one's weights would only keep x waiting; and where x
//   takes longest. But for two full rounds of one token's digits, which are multiplied so soon that starting early gains
//   more (4096 x 4096: 3.2 µs instead of 3.9), or short groups (4.4 instead of 4.8).
// - else at once.
template <class Kind>
int next_before(const DecodeArguments& p, const Work<Kind>& work, bool quick_digits, bool small_kernel_next) {
  constexpr int kBlocksLeftOfSmall = 28;
  // In which the next one starts; x of more tokens takes longer.
  const int blocks_left = Kind::kBits == 4 && p.M > 2 ? 4 : 9;
  const bool four_rounds_are_few = Kind::kBits == 8 || p.M > 2 || small_kernel_next || p.groups.zero_point != nullptr;
  const bool late = Kind::kStartsNextLate && work.rounds > (four_rounds_are_few ? 4 : 3) && !work.x_is_quick;
  if (late && small_kernel_next) return kBlocksLeftOfSmall;
  const bool one_as_digits = Kind::kSplits && p.M == 1 && p.groups.zero_point == nullptr;
  if (late && work.rounds <= (one_as_digits ? 4 : kManyRounds)) return blocks_left;
  if (Kind::kInteger && !Kind::kQuantizes && !work.few && work.most_end_early) return kNextAtEnd;
  const bool two_of_short_groups = Kind::kFlush == 1 && p.M == 1 && work.two_full_rounds;
  if (quick_digits || two_of_short_groups) return kNextAtOnce;
  return p.stages < work.rounds && !x_takes_longest(p, work) ? kNextAtOnce : kNextAfterWait;
}

// How many stages a ring asks for before x, which waits behind them; all measured.
// - of weights in groups one where a CTA has its multiprocessor alone, but not in a long run, in many rounds of one or two
//   tokens, or where two tokens are split; beside another CTA where x is quick, in two rounds that a ring holds of few
//   tokens, and of 4 bits that are not multiplied as digits in four rounds of three tokens and more, and in many;
// - of others two in long runs of short rows, and one of several tokens beside another CTA (of one token in few rounds one
//   less than all), in front of x that is quantized, unless it is much, and of x that comes for pairs, but in long runs;
// - else all.
template <class Kind>
int early_stages(const DecodeArguments& p, const Work<Kind>& work, bool alone, bool quick_digits) {
  if (Kind::kFlush > 0) {
    const int few_tokens = Kind::kFlush == 1 || Kind::kSplits ? 1 : 3;
    const bool two_rounds = p.stages == 2 && work.rounds == 2 && p.M <= few_tokens && !quick_digits;
    const bool four_rounds = work.rounds == 4 && p.M > 2, many_rounds = work.rounds > kManyRounds;
    if (alone) return work.long_run || (p.M <= 2 && (many_rounds || (Kind::kSplits && p.M == 2))) ? p.stages : 1;
    const bool others = !Kind::kSplits && Kind::kBits == 4 && (four_rounds || many_rounds);
    return work.x_is_quick || two_rounds || others ? 1 : p.stages;
  }
  int stages = p.stages;
  if (work.long_run && !work.long_rows) stages = 2;
  if (Kind::kQuantizes) {
    if (p.M * p.K <= kMuchToQuantize) stages = 1;
  } else if (!alone && (work.few || p.M > 1)) {
    stages = p.M == 1 ? std::max(p.stages - 1, 1) : 1;
  }
  if (Kind::kPairs && !work.long_run && (Kind::kTokenTiles == 1 || !Kind::kInteger)) stages = 1;
  return std::min(stages, p.stages);
}

template <class Kind>
Plan plan_of(const DecodeArguments& d, int sms, bool small_kernel_next) {
  const Work<Kind> work(d, sms);
  const auto with_stages = [&](int stages, int most) {
    stages = std::min(stages, work.rounds);
    while (stages > 1 && Shared<Kind>(planned<Kind>(d, stages)).bytes > most) --stages;
    return planned<Kind>(d, stages);
  };

  // Where x and two stages (or all that a CTA copies) fit beside as much again, the next kernel's stand beside it; but long
  // runs of blocks, which a larger ring serves better, have the multiprocessor alone.
  DecodeArguments p = with_stages(3, kSharedOfTwo);
  const bool alone = work.long_run || Shared<Kind>(p).bytes > kSharedOfTwo || p.stages < std::min(2, work.rounds);
  if (alone) p = with_stages(work.rounds <= 2 ? 1 : !work.long_run ? 2 : work.long_rows ? kMaxStages : 3, kMaxShared);
  // What a CTA does not need it asks for too, so that no third one comes, and CTAs of one kernel are spread evenly.
  const int bytes = std::max(Shared<Kind>(p).bytes, alone ? kSharedOfTwo + 1024 : kMoreThanAThird);

  // One token's digits in a ring of two rounds.
  const bool quick_digits =
      Kind::kSplits && Kind::kFlush == 4 && d.M == 1 && !alone && p.stages == 2 && work.two_full_rounds;
  p.next_before = alone && work.rounds > 1 ? kNextAtOnce : next_before(p, work, quick_digits, small_kernel_next);
  p.early_stages = early_stages(p, work, alone, quick_digits);
  p.tiles = work.tiles;
  p.with_one_more = work.with_one_more;
  return {p, work.grid, bytes};
}

// Of CTAs in pairs, Kind::kPairs, where they gain by that: x is large, and each has its multiprocessor alone, so that no
// other's weights are in front of its x.
template <class Kind>
std::optional<Plan> plan_of_pairs(const DecodeArguments& d, int sms, bool small_kernel_next) {
  constexpr int kLargeX = 14 << 10;  // in values
  if (d.M * d.K < kLargeX) return std::nullopt;
  const Plan plan = plan_of<Kind>(d, sms, small_kernel_next);
  const bool gains = plan.alone() && plan.shared_bytes <= kMaxShared && plan.grid % 2 == 0;
  return gains ? std::optional(plan) : std::nullopt;
}

}  // namespace octavo::decode
