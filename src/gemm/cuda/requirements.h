// What the kernels for GPUs ask of the GPU, and of a problem; and where a row that could take it yields to one below.
#pragma once

#include <algorithm>

#include "core/ceil_div.h"
#include "core/cuda.h"
#include "core/error.h"
#include "gemm/cuda/float_w_decode.h"
#include "gemm/cuda/float_w_sm80.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/cuda/s8_w8_decode.h"
#include "gemm/kernels.h"
#include "gemm/requirements.h"

namespace octavo {

inline Status any_gpu() { return cuda::some_gpu(); }

inline std::string any_gpu_problem(const Problem& p) { return cuda::refusal(p.device); }

inline constexpr cuda::Capability kAmpere = {8, 0};

inline Status needs_ampere() { return cuda::some_gpu(kAmpere); }

inline std::string needs_ampere_problem(const Problem& p) { return cuda::refusal(p.device, kAmpere); }

inline constexpr cuda::Capability kHopper = {9, 0, true};

inline Status needs_hopper() { return cuda::some_gpu(kHopper); }

inline std::string needs_hopper_and_aligned_rows(const Problem& p) {
  if (p.alignment < 16) return "rows do not begin at multiples of 16 bytes";
  if (p.K == 0) return "K is 0";
  return cuda::refusal(p.device, kHopper);
}

// The tensor copy engine, and products of a warp.
inline constexpr cuda::Capability kCopyEngine = {9, 0};

inline Status needs_copy_engine() { return cuda::some_gpu(kCopyEngine); }

inline std::string needs_copy_engine_and_aligned_rows(const Problem& p) {
  if (p.alignment < 16) return "rows do not begin at multiples of 16 bytes";
  if (p.N > std::int64_t{1} << 24) return format_text("N is {}, it is for up to 2^24", p.N);
  if (std::string reason = cuda::refusal(p.device, kCopyEngine); !reason.empty()) return reason;
  const std::int64_t bytes = (*cuda::gpu(p.device))->max_shared_memory;
  return bytes < kDecodeSharedBytes
             ? format_text("a thread block here has {} bytes of shared memory, it takes {}", bytes, kDecodeSharedBytes)
             : "";
}

// Why decode kernels do not take an x.
inline std::string too_much_x(const Problem& p) {
  if (p.M > kDecodeMaxTokens) return format_text("x has {} rows, it is for up to {}", p.M, kDecodeMaxTokens);
  return format_text("x [{}, {}] or its groups of {} are more than it is for", p.M, p.K, p.format.group_size);
}

inline std::string needs_few_s8_tokens(const Problem& p) {
  if (!s8_w8_decode_fits(p.M, p.K)) return too_much_x(p);
  return needs_copy_engine_and_aligned_rows(p);
}

inline std::string needs_very_few_tokens_to_quantize(const Problem& p) {
  if (p.activation == DType::kFloat32) return "x is float32, it takes float16 and bfloat16";
  if (!w8a8_decode_fits(p.M, p.K)) return format_text("x [{}, {}] has too many values for one pass", p.M, p.K);
  return needs_copy_engine_and_aligned_rows(p);
}

template <bool (*kFits)(std::int64_t M, std::int64_t K, const WeightFormat& format)>
std::string needs_few_float_tokens(const Problem& p) {
  if (p.activation == DType::kFloat32) return "x is float32, it takes float16 and bfloat16";
  if (p.format.group_size > 0 && p.format.group_size % 32 != 0) {
    return format_text("groups have {} weights, it takes multiples of 32", p.format.group_size);
  }
  if (!kFits(p.M, p.K, p.format)) return too_much_x(p);
  return needs_copy_engine_and_aligned_rows(p);
}

// Of weight-only products whose groups must not end within the piece of K that is multiplied at a time.
inline std::string needs_16_bit_x_and_whole_groups(const Problem& p, std::int64_t multiple) {
  if (p.activation == DType::kFloat32) return "x is float32, it multiplies float16 and bfloat16";
  if (p.format.groups(p.K) > 1 && p.format.group_size % multiple != 0) {
    return format_text("groups have {} weights, it takes multiples of {}", p.format.group_size, multiple);
  }
  return {};
}

inline std::string needs_ampere_and_16_bit_x(const Problem& p) {
  if (std::string reason = needs_16_bit_x_and_whole_groups(p, kFloatWSm80GroupMultiple); !reason.empty()) return reason;
  if (p.K == 0) return "K is 0";
  if (std::max(p.K, p.N) > kFloatWSm80MaxSide) return format_text("K or N is above {}", kFloatWSm80MaxSide);
  return needs_ampere_problem(p);
}

inline std::string needs_hopper_and_16_bit_x(const Problem& p) {
  std::string reason = needs_16_bit_x_and_whole_groups(p, kFloatWSm90GroupMultiple);
  return reason.empty() ? needs_hopper_and_aligned_rows(p) : reason;
}

// One scale a channel needs no rounding of weights.
inline std::string needs_groups(const Problem& p) {
  return p.format.groups(p.K) > 1 ? "" : "weights are not in groups along K";
}

// With few tokens the sums of groups are scaled as fast as weights are, and exactly.
inline std::string few_tokens_to_round_for(const Problem& p) {
  if (p.M >= kFloatWSm90RoundedTokens) return {};
  return format_text("x has {} rows; from {} on, rounding weights to its type makes products faster", p.M,
                     kFloatWSm90RoundedTokens);
}

// Every multiprocessor copies x whole for a decode kernel's first products. Where x is large, or short rows leave its warps
// little to do for so many tokens, other kernels lose less; and with more tokens than one product has, small tiles do where
// they fill the GPU, or convert nothing but nibbles of one scale a channel. These rules are of times on an H200.
inline constexpr std::int64_t kMuchX = 11 << 13, kShortRow = 1024, kLongRow = 8192;
inline constexpr std::int64_t kTokensOfOneProduct = 8;

// (Plain words, which take no time to put together: a decoding model asks for them at every product.)
inline constexpr const char* kMuchXIsCopied =
    "x is copied whole first, which takes longer than reading it along with the weights";
inline constexpr const char* kRowsAreShort = "rows are too short for so many tokens";
inline constexpr const char* kMoreTakeSmallTiles = "smaller tiles do better with more tokens than one product has";

// Whether the small tiles of the kernels for 8.0 and more are nearly as many as all multiprocessors have at a time, which is
// four each.
inline bool small_tiles_fill_the_gpu(const Problem& p) {
  constexpr std::int64_t kChannels = 32, kAtATime = 4;
  const auto gpu = cuda::gpu(p.device);
  if (!gpu.ok()) return false;
  const std::int64_t tiles = ceil_div(p.N, kChannels), sms = (*gpu)->num_sms;
  return tiles > (kAtATime - 1) * sms && tiles <= kAtATime * sms;
}

inline std::string decode_of_bytes_loses(const Problem& p) {
  if (p.M * p.K > kMuchX) return kMuchXIsCopied;
  if (p.M <= kTokensOfOneProduct) return {};
  if (p.K < kShortRow) return kRowsAreShort;
  return p.K < kLongRow && small_tiles_fill_the_gpu(p) ? kMoreTakeSmallTiles : "";
}

// Whether all weights of a channel have one scale, and no zero point.
inline bool only_channels_scaled(const Problem& p) { return p.format.groups(p.K) <= 1 && p.format.symmetric; }

inline std::string decode_of_nibbles_loses(const Problem& p) {
  if (p.M <= kTokensOfOneProduct) return {};
  if (p.K < kShortRow) return kRowsAreShort;
  return only_channels_scaled(p) ? kMoreTakeSmallTiles : "";
}

inline std::string much_s8_x(const Problem& p) {
  constexpr std::int64_t kMuchS8X = 1 << 17;
  const bool little = p.M <= kTokensOfOneProduct || p.M * p.K < kMuchS8X;
  return little || !cuda::refusal(p.device, kHopper).empty() ? "" : kMuchXIsCopied;
}

// The kernels for 8.0 and more have tiles of 16 tokens by 32 channels, several a multiprocessor; Hopper's 32 by 128, which
// read less of x, but begin and end more slowly. Up to 16 tokens small ones do better in rows below 8192; nibbles of one
// scale a channel, without zero points, in rows of any length.
inline std::string small_tiles_do_better(const Problem& p) {
  const bool nibbles_alone = bits_of(p.weight) == 4 && only_channels_scaled(p);
  const bool few = p.M <= 16 && (p.K < kLongRow || nibbles_alone);
  return few && std::max(p.K, p.N) <= kFloatWSm80MaxSide ? "for so few tokens smaller tiles do better" : "";
}

}  // namespace octavo
