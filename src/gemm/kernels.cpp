#include "gemm/kernels.h"

#include "gemm/cpu/bf16_w_amx.h"
#include "gemm/cpu/bf16_w_avx512bf16.h"
#include "gemm/cpu/float_w_avx2.h"
#include "gemm/cpu/float_w_avx512.h"
#include "gemm/cpu/float_w_row_avx2.h"
#include "gemm/cpu/integer_amx.h"
#include "gemm/cpu/integer_avx2.h"
#include "gemm/cpu/integer_avxvnni.h"
#include "gemm/cpu/llmint8_w8_packed.h"
#include "gemm/cpu/requirements.h"
#include "gemm/cpu/s8_w8_avx512vnni.h"
#include "gemm/cpu/s8_w8_row_avx2.h"
#include "gemm/cpu/s8g_w4_avx512vnni.h"
#include "gemm/cuda/float_w_decode.h"
#include "gemm/cuda/float_w_sm80.h"
#include "gemm/cuda/float_w_sm90.h"
#include "gemm/cuda/reference.h"
#include "gemm/cuda/requirements.h"
#include "gemm/cuda/s8_w8_decode.h"
#include "gemm/cuda/s8_w8_sm80.h"
#include "gemm/cuda/s8_w8_sm90.h"
#include "gemm/reference.h"

namespace octavo {
namespace {

#if OCTAVO_HAVE_CUDA
constexpr DeviceType kCuda = DeviceType::kCuda;
#endif
constexpr DeviceType kCpu = DeviceType::kCpu;
constexpr Layout kRowMajor = Layout::kRowMajor;
constexpr Layout kBlock64 = Layout::kBlock64;

const Kernel kTable[] = {
#if defined(__x86_64__)
    {"cpu_bf16_w8_amx", Op::kLinear, kCpu, kBlock64, "many rows of bf16 x, weights of 5 to 8 bits as bf16: AMX tiles",
     needs_amx_bf16, all_of<needs_many_bf16_rows, needs_more_than_4_bits>, cpu_bf16_w8_amx},
    {"cpu_bf16_w4_amx", Op::kLinear, kCpu, kBlock64, "many rows of bf16 x, weights of up to 4 bits as bf16: AMX tiles",
     needs_amx_bf16, all_of<needs_many_bf16_rows, needs_4_bits>, cpu_bf16_w4_amx},
    {"cpu_bf16_w8_avx512bf16", Op::kLinear, kCpu, kBlock64, "bf16 x, weights of 5 to 8 bits as bf16: VDPBF16PS",
     needs_avx512_bf16, all_of<needs_fast_vdpbf16ps, needs_more_than_4_bits>, cpu_bf16_w8_avx512bf16},
    {"cpu_bf16_w4_avx512bf16", Op::kLinear, kCpu, kBlock64, "bf16 x, weights of up to 4 bits as bf16: VDPBF16PS",
     needs_avx512_bf16, all_of<needs_fast_vdpbf16ps, needs_4_bits>, cpu_bf16_w4_avx512bf16},
    {"cpu_float_w8_avx512", Op::kLinear, kCpu, kBlock64, "fp32, fp16 or bf16 x, weights of 5 to 8 bits as fp32: FMA",
     needs_avx512, needs_more_than_4_bits, cpu_float_w8_avx512},
    {"cpu_float_w4_avx512", Op::kLinear, kCpu, kBlock64, "fp32, fp16 or bf16 x, weights of up to 4 bits as fp32: FMA",
     needs_avx512, needs_4_bits, cpu_float_w4_avx512},
    {"cpu_float_w8_avx2", Op::kLinear, kCpu, kBlock64, "the same with AVX2 for weights of 5 to 8 bits", needs_avx2,
     needs_more_than_4_bits, cpu_float_w8_avx2},
    {"cpu_float_w4_avx2", Op::kLinear, kCpu, kBlock64, "the same with AVX2 for weights of up to 4 bits", needs_avx2,
     needs_4_bits, cpu_float_w4_avx2},
    {"cpu_float_w8_row_avx2", Op::kLinear, kCpu, kRowMajor,
     "few rows of fp32, fp16 or bf16 x, weights one a byte, row-major", needs_avx2, all_of<needs_bytes, needs_few_rows>,
     cpu_float_w8_row_avx2},
    {"cpu_float_w4_row_avx2", Op::kLinear, kCpu, kRowMajor, "the same with weights two a byte", needs_avx2,
     all_of<needs_nibbles, needs_groups_of_whole_bytes, needs_few_rows>, cpu_float_w4_row_avx2},
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
     needs_copy_engine, all_of<needs_bytes, needs_few_float_tokens<float_w8_decode_fits>>, cuda_float_w8_decode,
     decode_of_bytes_loses},
    {"cuda_float_w4_decode", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_copy_engine,
     all_of<needs_nibbles, needs_few_float_tokens<float_w4_decode_fits>>, cuda_float_w4_decode, decode_of_nibbles_loses},
    {"cuda_float_w8_rounded_sm90", Op::kLinear, kCuda, kRowMajor,
     "many tokens of fp16 or bf16 x, weights one a byte in groups, on Hopper: scaled and rounded to x's type in registers",
     needs_hopper, all_of<needs_groups, needs_bytes, needs_hopper_and_16_bit_x>, cuda_float_w8_rounded_sm90,
     few_tokens_to_round_for},
    {"cuda_float_w4_rounded_sm90", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_hopper,
     all_of<needs_groups, needs_nibbles, needs_hopper_and_16_bit_x>, cuda_float_w4_rounded_sm90, few_tokens_to_round_for},
    {"cuda_float_w8_sm90", Op::kLinear, kCuda, kRowMajor,
     "fp16 or bf16 x, weights one a byte, on Hopper: converted in registers, wgmma", needs_hopper,
     all_of<needs_bytes, needs_hopper_and_16_bit_x>, cuda_float_w8_sm90, small_tiles_do_better},
    {"cuda_float_w4_sm90", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_hopper,
     all_of<needs_nibbles, needs_hopper_and_16_bit_x>, cuda_float_w4_sm90, small_tiles_do_better},
    {"cuda_float_w8_sm80", Op::kLinear, kCuda, kRowMajor,
     "fp16 or bf16 x, weights one a byte, from compute capability 8.0 on: converted in registers, mma.sync", needs_ampere,
     all_of<needs_bytes, needs_ampere_and_16_bit_x>, cuda_float_w8_sm80},
    {"cuda_float_w4_sm80", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", needs_ampere,
     all_of<needs_nibbles, needs_ampere_and_16_bit_x>, cuda_float_w4_sm80},
    {"cuda_float_w8_reference", Op::kLinear, kCuda, kRowMajor,
     "fp32, fp16 or bf16 x, weights one a byte: plain loops in fp64", any_gpu, all_of<needs_bytes, any_gpu_problem>,
     cuda_float_w8_reference},
    {"cuda_float_w4_reference", Op::kLinear, kCuda, kRowMajor, "the same with weights two a byte", any_gpu,
     all_of<needs_nibbles, any_gpu_problem>, cuda_float_w4_reference},
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

}  // namespace

std::span<const Kernel> kernel_table() { return kTable; }

}  // namespace octavo
