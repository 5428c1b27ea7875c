#include "gemm/kernels.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>

#include "core/amx.h"
#include "core/cpu_features.h"
#include "core/cuda.h"
#include "core/error.h"
#include "core/macros.h"
#include "gemm/cpu/bf16_w_amx.h"
#include "gemm/cpu/bf16_w_avx512bf16.h"
#include "gemm/cpu/float_w_avx2.h"
#include "gemm/cpu/float_w_avx512.h"
#include "gemm/cpu/float_w_row_avx2.h"
#include "gemm/cpu/integer_amx.h"
#include "gemm/cpu/integer_avx2.h"
#include "gemm/cpu/integer_avxvnni.h"
#include "gemm/cpu/llmint8_w8_packed.h"
#include "gemm/cpu/s8_w8_avx512vnni.h"
#include "gemm/cpu/s8_w8_row_avx2.h"
#include "gemm/cpu/s8g_w4_avx512vnni.h"
#include "gemm/cuda/float_w_decode.h"
#include "gemm/cuda/float_w_sm80.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/cuda/reference.h"
#include "gemm/cuda/s8_w8_decode.h"
#include "gemm/cuda/s8_w8_sm80.h"
#include "gemm/cuda/s8_w8_sm90.h"
#include "gemm/reference.h"

namespace octavo {
namespace {

Status anywhere() { return {}; }

Status needs_amx_int8() {
  if (!cpu_features().amx_int8) return unsupported("this processor has no AMX-INT8");
  if (!amx_permitted()) return unsupported("the system gives this process no AMX tiles");
  return {};
}

Status needs_amx_bf16() {
  if (!cpu_features().amx_bf16) return unsupported("this processor has no AMX-BF16");
  if (!amx_permitted()) return unsupported("the system gives this process no AMX tiles");
  return {};
}

Status needs_avx_vnni() {
  if (cpu_features().avx_vnni) return {};
  return unsupported("this processor has no AVX-VNNI");
}

Status needs_avx512_vnni() {
  if (cpu_features().avx512_vnni) return {};
  return unsupported("this processor has no AVX-512 VNNI");
}

Status needs_avx2() {
  if (cpu_features().avx2) return {};
  return unsupported("this processor has no AVX2");
}

Status needs_avx512() {
  if (cpu_features().avx512) return {};
  return unsupported("this processor has no AVX-512");
}

Status needs_avx512_bf16() {
  if (cpu_features().avx512_bf16) return {};
  return unsupported("this processor has no AVX-512-BF16");
}

// Why a row does not run a problem. Rows of packed weights refuse in plain words: what a decoding model asks of the table
// takes some 40 ns then, and 150 more for every text that is put together.
std::string any_problem(const Problem&) { return {}; }

std::string needs_bytes(const Problem& p) {
  return bits_of(p.weight) == 4 ? format_text("weights are {}, it reads one a byte", to_string(p.weight)) : "";
}

std::string needs_nibbles(const Problem& p) {
  return bits_of(p.weight) == 8 ? format_text("weights are {}, it reads two a byte", to_string(p.weight)) : "";
}

// Packed weights hold one a byte or two a byte by their bits alone.
std::string needs_more_than_4_bits(const Problem& p) {
  return p.format.num_bits <= 4 ? "weights have no more than 4 bits" : "";
}

std::string needs_4_bits(const Problem& p) { return p.format.num_bits > 4 ? "weights have more than 4 bits" : ""; }

std::string needs_bf16_x(const Problem& p) { return p.activation != DType::kBFloat16 ? "x is not bf16" : ""; }

// Processors with tiles do VDPBF16PS at a fraction of the rate of fp32: half as fast there as cpu_float_*_avx512.
std::string needs_fast_vdpbf16ps(const Problem& p) {
  if (cpu_features().amx_bf16) return "processors with AMX-BF16 multiply bf16 in vectors slower than fp32";
  return needs_bf16_x(p);
}

std::string needs_fast_vdpbf16ps_and_more_than_4_bits(const Problem& p) {
  std::string reason = needs_fast_vdpbf16ps(p);
  return reason.empty() ? needs_more_than_4_bits(p) : reason;
}

std::string needs_fast_vdpbf16ps_and_4_bits(const Problem& p) {
  std::string reason = needs_fast_vdpbf16ps(p);
  return reason.empty() ? needs_4_bits(p) : reason;
}

std::string needs_many_bf16_rows_and_more_than_4_bits(const Problem& p) {
  if (p.M < kAmxMinRows) return "x has few rows";
  std::string reason = needs_bf16_x(p);
  return reason.empty() ? needs_more_than_4_bits(p) : reason;
}

std::string needs_many_bf16_rows_and_4_bits(const Problem& p) {
  if (p.M < kAmxMinRows) return "x has few rows";
  std::string reason = needs_bf16_x(p);
  return reason.empty() ? needs_4_bits(p) : reason;
}

std::string needs_many_rows(const Problem& p) {
  return p.M < kAmxMinRows ? format_text("x has {} rows, it is for {} and more", p.M, kAmxMinRows) : "";
}

std::string needs_many_rows_and_whole_tiles(const Problem& p) {
  if (p.format.group_size % kAmxGroupMultiple != 0) {
    return format_text("groups have {} weights, it takes multiples of {}", p.format.group_size, kAmxGroupMultiple);
  }
  return p.M < kAmxMinGroupedRows ? format_text("x has {} rows, it is for {} and more", p.M, kAmxMinGroupedRows) : "";
}

std::string needs_few_rows(const Problem& p) {
  if (p.M <= kFloatRowAvx2MaxRows) return {};
  return format_text("x has {} rows, it is for up to {}", p.M, kFloatRowAvx2MaxRows);
}

std::string needs_few_rows_and_bytes(const Problem& p) {
  std::string reason = needs_bytes(p);
  return reason.empty() ? needs_few_rows(p) : reason;
}

std::string needs_few_rows_and_nibbles(const Problem& p) {
  if (std::string reason = needs_nibbles(p); !reason.empty()) return reason;
  if (p.format.group_size > 0 && p.format.group_size % 2 != 0) {
    return format_text("groups of {} begin in the middle of a byte", p.format.group_size);
  }
  return needs_few_rows(p);
}

#if OCTAVO_HAVE_CUDA
Status any_gpu() { return cuda::some_gpu(); }

std::string any_gpu_problem(const Problem& p) { return cuda::refusal(p.device); }

std::string any_gpu_and_bytes(const Problem& p) {
  std::string reason = needs_bytes(p);
  return reason.empty() ? any_gpu_problem(p) : reason;
}

std::string any_gpu_and_nibbles(const Problem& p) {
  std::string reason = needs_nibbles(p);
  return reason.empty() ? any_gpu_problem(p) : reason;
}

constexpr cuda::Capability kAmpere = {8, 0};

Status needs_ampere() { return cuda::some_gpu(kAmpere); }

std::string needs_ampere_problem(const Problem& p) { return cuda::refusal(p.device, kAmpere); }

constexpr cuda::Capability kHopper = {9, 0, true};

Status needs_hopper() { return cuda::some_gpu(kHopper); }

std::string needs_hopper_and_aligned_rows(const Problem& p) {
  if (p.alignment < 16) return "rows do not begin at multiples of 16 bytes";
  if (p.K == 0) return "K is 0";
  return cuda::refusal(p.device, kHopper);
}

// The tensor copy engine, and products of a warp.
constexpr cuda::Capability kCopyEngine = {9, 0};

Status needs_copy_engine() { return cuda::some_gpu(kCopyEngine); }

std::string needs_copy_engine_and_aligned_rows(const Problem& p) {
  if (p.alignment < 16) return "rows do not begin at multiples of 16 bytes";
  if (p.N > std::int64_t{1} << 24) return format_text("N is {}, it is for up to 2^24", p.N);
  if (std::string reason = cuda::refusal(p.device, kCopyEngine); !reason.empty()) return reason;
  const std::int64_t bytes = (*cuda::gpu(p.device))->max_shared_memory;
  return bytes < kDecodeSharedBytes
             ? format_text("a thread block here has {} bytes of shared memory, it takes {}", bytes, kDecodeSharedBytes)
             : "";
}

// Why decode kernels do not take an x.
std::string too_much_x(const Problem& p) {
  if (p.M > kDecodeMaxTokens) return format_text("x has {} rows, it is for up to {}", p.M, kDecodeMaxTokens);
  return format_text("x [{}, {}] or its groups of {} are more than it is for", p.M, p.K, p.format.group_size);
}

std::string needs_few_s8_tokens(const Problem& p) {
  if (!s8_w8_decode_fits(p.M, p.K)) return too_much_x(p);
  return needs_copy_engine_and_aligned_rows(p);
}

std::string needs_very_few_tokens_to_quantize(const Problem& p) {
  if (p.activation == DType::kFloat32) return "x is float32, it takes float16 and bfloat16";
  if (!w8a8_decode_fits(p.M, p.K)) return format_text("x [{}, {}] has too many values for one pass", p.M, p.K);
  return needs_copy_engine_and_aligned_rows(p);
}

std::string needs_few_float_tokens(const Problem& p, bool fits) {
  if (p.activation == DType::kFloat32) return "x is float32, it takes float16 and bfloat16";
  if (p.format.group_size > 0 && p.format.group_size % 32 != 0) {
    return format_text("groups have {} weights, it takes multiples of 32", p.format.group_size);
  }
  if (!fits) return too_much_x(p);
  return needs_copy_engine_and_aligned_rows(p);
}

std::string needs_few_float_tokens_and_bytes(const Problem& p) {
  std::string reason = needs_bytes(p);
  if (!reason.empty()) return reason;
  return needs_few_float_tokens(p, float_w8_decode_fits(p.M, p.K, p.format));
}

std::string needs_few_float_tokens_and_nibbles(const Problem& p) {
  std::string reason = needs_nibbles(p);
  if (!reason.empty()) return reason;
  return needs_few_float_tokens(p, float_w4_decode_fits(p.M, p.K, p.format));
}

// Of weight-only products whose groups must not end within the piece of K that is multiplied at a time.
std::string needs_16_bit_x_and_whole_groups(const Problem& p, std::int64_t multiple) {
  if (p.activation == DType::kFloat32) return "x is float32, it multiplies float16 and bfloat16";
  if (p.format.groups(p.K) > 1 && p.format.group_size % multiple != 0) {
    return format_text("groups have {} weights, it takes multiples of {}", p.format.group_size, multiple);
  }
  return {};
}

std::string needs_ampere_and_16_bit_x(const Problem& p) {
  if (std::string reason = needs_16_bit_x_and_whole_groups(p, kFloatWSm80GroupMultiple); !reason.empty()) return reason;
  if (p.K == 0) return "K is 0";
  if (std::max(p.K, p.N) > kFloatWSm80MaxSide) return format_text("K or N is above {}", kFloatWSm80MaxSide);
  return needs_ampere_problem(p);
}

std::string needs_ampere_16_bit_x_and_bytes(const Problem& p) {
  std::string reason = needs_bytes(p);
  return reason.empty() ? needs_ampere_and_16_bit_x(p) : reason;
}

std::string needs_ampere_16_bit_x_and_nibbles(const Problem& p) {
  std::string reason = needs_nibbles(p);
  return reason.empty() ? needs_ampere_and_16_bit_x(p) : reason;
}

std::string needs_hopper_and_16_bit_x(const Problem& p) {
  std::string reason = needs_16_bit_x_and_whole_groups(p, kFloatWSm90GroupMultiple);
  return reason.empty() ? needs_hopper_and_aligned_rows(p) : reason;
}

std::string needs_hopper_16_bit_x_and_bytes(const Problem& p) {
  std::string reason = needs_bytes(p);
  return reason.empty() ? needs_hopper_and_16_bit_x(p) : reason;
}

std::string needs_hopper_16_bit_x_and_nibbles(const Problem& p) {
  std::string reason = needs_nibbles(p);
  return reason.empty() ? needs_hopper_and_16_bit_x(p) : reason;
}

// One scale a channel needs no rounding of weights.
std::string needs_groups(const Problem& p) { return p.format.groups(p.K) > 1 ? "" : "weights are not in groups along K"; }

std::string needs_hopper_16_bit_x_and_bytes_in_groups(const Problem& p) {
  std::string reason = needs_groups(p);
  return reason.empty() ? needs_hopper_16_bit_x_and_bytes(p) : reason;
}

std::string needs_hopper_16_bit_x_and_nibbles_in_groups(const Problem& p) {
  std::string reason = needs_groups(p);
  return reason.empty() ? needs_hopper_16_bit_x_and_nibbles(p) : reason;
}

// With few tokens the sums of groups are scaled as fast as weights are, and exactly.
std::string few_tokens_to_round_for(const Problem& p) {
  if (p.M >= kFloatWSm90RoundedTokens) return {};
  return format_text("x has {} rows; from {} on, rounding weights to its type makes products faster", p.M,
                     kFloatWSm90RoundedTokens);
}

// Every multiprocessor copies x whole before a decode kernel's first product. From so many values on that takes longer than
// what other kernels lose. These rules are of times on an H100.
constexpr std::int64_t kMuchX = 1 << 16;
constexpr std::int64_t kTokensOfOneProduct = 8;

std::string much_x(const Problem& p) {
  return format_text("x [{}, {}] is copied whole first, which takes longer than reading it along with the weights", p.M,
                     p.K);
}

std::string much_x_for_bytes(const Problem& p) { return p.M <= kTokensOfOneProduct && p.M * p.K < kMuchX ? "" : much_x(p); }

std::string much_x_for_nibbles(const Problem& p) { return p.M <= kTokensOfOneProduct ? "" : much_x(p); }

std::string much_s8_x(const Problem& p) {
  const bool little = p.M <= kTokensOfOneProduct || p.M * p.K <= kMuchX;
  return little || !cuda::refusal(p.device, kHopper).empty() ? "" : much_x(p);
}

// The kernels for 8.0 and more have tiles of 16 tokens by 32 channels, several a multiprocessor; Hopper's 32 by 128, which
// read less of x, but begin and end more slowly.
std::string small_tiles_do_better(const Problem& p, std::int64_t longest_row) {
  constexpr std::int64_t kFewWeights = 1 << 24;
  const bool long_groups = p.format.groups(p.K) > 1 && p.format.group_size % 64 == 0;
  const bool few = (p.M <= 16 && p.K <= longest_row) || (p.M <= 32 && p.N * p.K <= kFewWeights && !long_groups);
  if (!few || std::max(p.N, p.K) > kFloatWSm80MaxSide) return {};
  return format_text("x has {} rows, for which smaller tiles do better", p.M);
}

std::string small_tiles_do_better_for_bytes(const Problem& p) { return small_tiles_do_better(p, 8192); }
std::string small_tiles_do_better_for_nibbles(const Problem& p) { return small_tiles_do_better(p, kFloatWSm80MaxSide); }

constexpr DeviceType kCuda = DeviceType::kCuda;
#endif

constexpr DeviceType kCpu = DeviceType::kCpu;
constexpr Layout kRowMajor = Layout::kRowMajor;
constexpr Layout kBlock64 = Layout::kBlock64;

// From so many rows of x on, packing a row-major weight for one product costs less than a kernel without packing.
constexpr std::int64_t kRowsWorthPacking = 32;

const Kernel kTable[] = {
#if defined(__x86_64__)
    {"cpu_bf16_w8_amx", Op::kLinear, kCpu, kBlock64, "many rows of bf16 x, weights of 5 to 8 bits as bf16: AMX tiles",
     needs_amx_bf16, needs_many_bf16_rows_and_more_than_4_bits, cpu_bf16_w8_amx},
    {"cpu_bf16_w4_amx", Op::kLinear, kCpu, kBlock64, "many rows of bf16 x, weights of up to 4 bits as bf16: AMX tiles",
     needs_amx_bf16, needs_many_bf16_rows_and_4_bits, cpu_bf16_w4_amx},
    {"cpu_bf16_w8_avx512bf16", Op::kLinear, kCpu, kBlock64, "bf16 x, weights of 5 to 8 bits as bf16: VDPBF16PS",
     needs_avx512_bf16, needs_fast_vdpbf16ps_and_more_than_4_bits, cpu_bf16_w8_avx512bf16},
    {"cpu_bf16_w4_avx512bf16", Op::kLinear, kCpu, kBlock64, "bf16 x, weights of up to 4 bits as bf16: VDPBF16PS",
     needs_avx512_bf16, needs_fast_vdpbf16ps_and_4_bits, cpu_bf16_w4_avx512bf16},
    {"cpu_float_w8_avx512", Op::kLinear, kCpu, kBlock64, "fp32, fp16 or bf16 x, weights of 5 to 8 bits as fp32: FMA",
     needs_avx512, needs_more_than_4_bits, cpu_float_w8_avx512},
    {"cpu_float_w4_avx512", Op::kLinear, kCpu, kBlock64, "fp32, fp16 or bf16 x, weights of up to 4 bits as fp32: FMA",
     needs_avx512, needs_4_bits, cpu_float_w4_avx512},
    {"cpu_float_w8_avx2", Op::kLinear, kCpu, kBlock64, "the same with AVX2 for weights of 5 to 8 bits", needs_avx2,
     needs_more_than_4_bits, cpu_float_w8_avx2},
    {"cpu_float_w4_avx2", Op::kLinear, kCpu, kBlock64, "the same with AVX2 for weights of up to 4 bits", needs_avx2,
     needs_4_bits, cpu_float_w4_avx2},
    {"cpu_float_w8_row_avx2", Op::kLinear, kCpu, kRowMajor,
     "few rows of fp32, fp16 or bf16 x, weights one a byte, row-major", needs_avx2, needs_few_rows_and_bytes,
     cpu_float_w8_row_avx2},
    {"cpu_float_w4_row_avx2", Op::kLinear, kCpu, kRowMajor, "the same with weights two a byte", needs_avx2,
     needs_few_rows_and_nibbles, cpu_float_w4_row_avx2},
#endif
    {"cpu_float_w8_reference", Op::kLinear, kCpu, kRowMajor, "fp32, fp16 or bf16 x, weights one a byte: plain loops in fp64",
     anywhere, needs_bytes, reference::linear},
    {"cpu_float_w4_reference", Op::kLinear, kCpu, kRowMajor, "fp32, fp16 or bf16 x, weights two a byte: plain loops in fp64",
     anywhere, needs_nibbles, reference::linear},
#if defined(__x86_64__)
    {"cpu_s8_w8_amx", Op::kScaledMm, kCpu, kBlock64, "many rows of int8 x int8: AMX tiles", needs_amx_int8, needs_many_rows,
     cpu_s8_w8_amx},
    {"cpu_s8_w8_avx512vnni", Op::kScaledMm, kCpu, kBlock64, "int8 x int8: VPDPBUSD", needs_avx512_vnni, any_problem,
     cpu_s8_w8_avx512vnni},
    {"cpu_s8_w8_avxvnni", Op::kScaledMm, kCpu, kBlock64, "int8 x int8: VPDPBUSD of 256 bits", needs_avx_vnni, any_problem,
     cpu_s8_w8_avxvnni},
    {"cpu_s8_w8_avx2", Op::kScaledMm, kCpu, kBlock64, "int8 x int8: widening and VPMADDWD", needs_avx2, any_problem,
     cpu_s8_w8_avx2},
    {"cpu_s8_w8_row_avx2", Op::kScaledMm, kCpu, kRowMajor, "int8 x int8, row-major: sign extension and VPMADDWD", needs_avx2,
     any_problem, cpu_s8_w8_row_avx2},
#endif
    {"cpu_s8_w8_reference", Op::kScaledMm, kCpu, kRowMajor, "int8 x int8: plain loops", anywhere, any_problem,
     reference::scaled_mm},
#if defined(__x86_64__)
    {"cpu_s8g_w4_amx", Op::kLinearW4A8, kCpu, kBlock64, "many rows of x quantized per token and group: AMX tiles",
     needs_amx_int8, needs_many_rows_and_whole_tiles, cpu_s8g_w4_amx},
    {"cpu_s8g_w4_avx512vnni", Op::kLinearW4A8, kCpu, kBlock64, "x quantized per token and group: VPDPBUSD on raw nibbles",
     needs_avx512_vnni, any_problem, cpu_s8g_w4_avx512vnni},
    {"cpu_s8g_w4_avxvnni", Op::kLinearW4A8, kCpu, kBlock64, "the same: VPDPBUSD of 256 bits", needs_avx_vnni, any_problem,
     cpu_s8g_w4_avxvnni},
    {"cpu_s8g_w4_avx2", Op::kLinearW4A8, kCpu, kBlock64, "the same: widening and VPMADDWD", needs_avx2, any_problem,
     cpu_s8g_w4_avx2},
#endif
    {"cpu_s8g_w4_reference", Op::kLinearW4A8, kCpu, kRowMajor, "x quantized per token and group: plain loops", anywhere,
     any_problem, reference::linear_w4a8},
#if defined(__x86_64__)
    {"cpu_llmint8_w8_packed", Op::kLinearLlmInt8, kCpu, kBlock64, "scaled_mm's kernel, then the outliers in fp32",
     needs_avx2, any_problem, cpu_llmint8_w8_packed},
#endif
    {"cpu_llmint8_w8_reference", Op::kLinearLlmInt8, kCpu, kRowMajor, "int8 product and outliers in fp32: plain loops",
     anywhere, any_problem, reference::linear_llm_int8},
#if OCTAVO_HAVE_CUDA
    {"cuda_float_w8_decode", Op::kLinear, kCuda, kRowMajor,
     "few tokens of fp16 or bf16 x, weights one a byte: mma.sync, every warp fed by the tensor copy engine",
     needs_copy_engine, needs_few_float_tokens_and_bytes, cuda_float_w8_decode, much_x_for_bytes},
    {"cuda_float_w4_decode", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_copy_engine,
     needs_few_float_tokens_and_nibbles, cuda_float_w4_decode, much_x_for_nibbles},
    {"cuda_float_w8_rounded_sm90", Op::kLinear, kCuda, kRowMajor,
     "many tokens of fp16 or bf16 x, weights one a byte in groups, on Hopper: scaled and rounded to x's type in registers",
     needs_hopper, needs_hopper_16_bit_x_and_bytes_in_groups, cuda_float_w8_rounded_sm90, few_tokens_to_round_for},
    {"cuda_float_w4_rounded_sm90", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_hopper,
     needs_hopper_16_bit_x_and_nibbles_in_groups, cuda_float_w4_rounded_sm90, few_tokens_to_round_for},
    {"cuda_float_w8_sm90", Op::kLinear, kCuda, kRowMajor,
     "fp16 or bf16 x, weights one a byte, on Hopper: converted in registers, wgmma", needs_hopper,
     needs_hopper_16_bit_x_and_bytes, cuda_float_w8_sm90, small_tiles_do_better_for_bytes},
    {"cuda_float_w4_sm90", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_hopper,
     needs_hopper_16_bit_x_and_nibbles, cuda_float_w4_sm90, small_tiles_do_better_for_nibbles},
    {"cuda_float_w8_sm80", Op::kLinear, kCuda, kRowMajor,
     "fp16 or bf16 x, weights one a byte, from compute capability 8.0 on: converted in registers, mma.sync", needs_ampere,
     needs_ampere_16_bit_x_and_bytes, cuda_float_w8_sm80},
    {"cuda_float_w4_sm80", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_ampere,
     needs_ampere_16_bit_x_and_nibbles, cuda_float_w4_sm80},
    {"cuda_float_w8_reference", Op::kLinear, kCuda, kRowMajor,
     "fp32, fp16 or bf16 x, weights one a byte: plain loops in fp64", any_gpu, any_gpu_and_bytes, cuda_float_w8_reference},
    {"cuda_float_w4_reference", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", any_gpu,
     any_gpu_and_nibbles, cuda_float_w4_reference},
    {"cuda_w8a8_decode", Op::kLinearW8A8, kCuda, kRowMajor, "very few tokens, quantized where cuda_s8_w8_decode copies them",
     needs_copy_engine, needs_very_few_tokens_to_quantize, cuda_w8a8_decode},
    {"cuda_s8_w8_decode", Op::kScaledMm, kCuda, kRowMajor,
     "few tokens of int8 x int8: mma.sync, every warp fed by the tensor copy engine", needs_copy_engine, needs_few_s8_tokens,
     cuda_s8_w8_decode, much_s8_x},
    {"cuda_s8_w8_sm90", Op::kScaledMm, kCuda, kRowMajor, "int8 x int8 on Hopper: wgmma, fed by the tensor copy engine",
     needs_hopper, needs_hopper_and_aligned_rows, cuda_s8_w8_sm90},
    {"cuda_s8_w8_sm80", Op::kScaledMm, kCuda, kRowMajor, "int8 x int8 from compute capability 8.0 on: mma.sync",
     needs_ampere, needs_ampere_problem, cuda_s8_w8_sm80},
    {"cuda_s8_w8_reference", Op::kScaledMm, kCuda, kRowMajor, "int8 x int8: each thread one dot product", any_gpu,
     any_gpu_problem, cuda_s8_w8_reference},
#endif
};

// Whether this machine can run the rows of a device, asked once; of CUDA only when something runs there, because asking
// starts the driver, after which a process should not fork.
template <DeviceType kDevice>
bool usable_on(const Kernel& kernel) {
  static const auto answers = [] {
    std::array<bool, std::size(kTable)> rows = {};
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = kTable[i].device == kDevice && kTable[i].usable().ok();
    return rows;
  }();
  return answers[static_cast<std::size_t>(&kernel - kTable)];
}

bool usable(const Kernel& kernel) {
  return kernel.device == DeviceType::kCpu ? usable_on<DeviceType::kCpu>(kernel) : usable_on<DeviceType::kCuda>(kernel);
}

// What keeps a row from a problem, before it is asked itself.
enum class Obstacle : std::uint8_t { kNone, kOp, kDevice, kMachine, kLayout, kFewRows };

// A forced row packs whatever it costs.
Obstacle obstacle(const Kernel& kernel, const Problem& problem, bool forced = false) {
  if (kernel.op != problem.op) return Obstacle::kOp;
  if (kernel.device != problem.device.type) return Obstacle::kDevice;
  if (!usable(kernel)) return Obstacle::kMachine;
  if (kernel.layout == problem.layout) return Obstacle::kNone;
  if (problem.layout != kRowMajor || problem.N == 0 || problem.K == 0) return Obstacle::kLayout;
  return problem.M < kRowsWorthPacking && !forced ? Obstacle::kFewRows : Obstacle::kNone;
}

// Whether a row runs the problem. No reason is written, which would take longer than a small product does.
bool runs(const Kernel& kernel, const Problem& problem) {
  return obstacle(kernel, problem) == Obstacle::kNone && kernel.refuses(problem).empty() &&
         (kernel.yields == nullptr || kernel.yields(problem).empty());
}

// Why a row does not run the problem; empty when it does.
std::string reason_against(const Kernel& kernel, const Problem& problem, bool forced = false) {
  switch (obstacle(kernel, problem, forced)) {
    case Obstacle::kNone: {
      std::string reason = kernel.refuses(problem);
      return reason.empty() && kernel.yields != nullptr && !forced ? kernel.yields(problem) : reason;
    }
    case Obstacle::kOp:
      return format_text("it computes {}", to_string(kernel.op));
    case Obstacle::kDevice:
      return "it runs on another device";
    case Obstacle::kMachine:
      return kernel.usable().message();
    case Obstacle::kLayout:
      return format_text("weights are {}, it reads {}", to_string(problem.layout), to_string(kernel.layout));
    case Obstacle::kFewRows:
      break;
  }
  return format_text("weights are row-major; packing them for one product pays from {} rows on", kRowsWorthPacking);
}

// The reasons of the rows before `last`; nullptr: of all.
std::vector<Refusal> refusals_before(const Kernel* last, const Problem& problem) {
  std::vector<Refusal> refusals;
  for (const Kernel& kernel : kTable) {
    if (&kernel == last) break;
    if (kernel.op != problem.op || kernel.device != problem.device.type) continue;
    if (std::string reason = reason_against(kernel, problem); !reason.empty()) {
      refusals.push_back({kernel.name, std::move(reason)});
    }
  }
  return refusals;
}

const Kernel* row_named(std::string_view name) {
  for (const Kernel& kernel : kTable) {
    if (kernel.name == name) return &kernel;
  }
  return nullptr;
}

// The kernel that OCTAVO_KERNEL names, if it computes this operation; a name forces only the products it can be meant for.
Result<const Kernel*> forced_kernel(const Problem& problem) {
  const char* name = std::getenv("OCTAVO_KERNEL");
  if (name == nullptr || *name == '\0') return static_cast<const Kernel*>(nullptr);
  const Kernel* kernel = row_named(name);
  if (kernel == nullptr) return not_found("OCTAVO_KERNEL={} names no kernel; `octavo kernels` lists them", name);
  if (kernel->op != problem.op || kernel->device != problem.device.type) return static_cast<const Kernel*>(nullptr);
  if (const std::string reason = reason_against(*kernel, problem, true); !reason.empty()) {
    return unsupported("OCTAVO_KERNEL={} cannot run this: {}", name, reason);
  }
  return kernel;
}

}  // namespace

std::span<const Kernel> kernel_table() { return kTable; }

Result<const Kernel*> find_kernel(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, kernel_if_any(problem));
  if (kernel != nullptr) return kernel;
  std::string all;
  for (const Refusal& refusal : refusals_before(nullptr, problem))
    all += format_text("; {}: {}", refusal.kernel, refusal.reason);
  return unsupported("no kernel computes {} for M={}, N={}, K={}, {} x {}{}", to_string(problem.op), problem.M, problem.N,
                     problem.K, to_string(problem.activation), to_string(problem.weight), all);
}

Result<const Kernel*> kernel_if_any(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* forced, forced_kernel(problem));
  if (forced != nullptr) return forced;
  for (const Kernel& kernel : kTable) {
    if (runs(kernel, problem)) return &kernel;
  }
  return static_cast<const Kernel*>(nullptr);
}

bool is_kernel_forced(Op op, DeviceType device) {
  const char* name = std::getenv("OCTAVO_KERNEL");
  const Kernel* kernel = name == nullptr ? nullptr : row_named(name);
  return kernel != nullptr && kernel->op == op && kernel->device == device;
}

const Kernel& first_kernel(const Problem& problem) {
  for (const Kernel& kernel : kTable) {
    if (runs(kernel, problem)) return kernel;
  }
  std::abort();  // a row asks for a product that no row computes
}

std::vector<KernelInfo> list_kernels() {
  std::vector<KernelInfo> rows;
  for (const Kernel& kernel : kTable)
    rows.push_back({kernel.name, kernel.op, kernel.device, kernel.layout, kernel.summary, kernel.usable()});
  return rows;
}

Layout best_layout(Problem problem) {
  if (problem.N == 0 || problem.K == 0) return kRowMajor;
  for (const Layout layout : {kBlock64, kRowMajor}) {
    problem.layout = layout;
    if (find_kernel(problem).ok()) return layout;
  }
  return kRowMajor;
}

Result<Selection> select_kernel(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, find_kernel(problem));
  return Selection{kernel->name, refusals_before(kernel, problem)};
}

}  // namespace octavo
