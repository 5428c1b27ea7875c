// What the kernels for the CPU ask of the processor, and of a problem.
#pragma once

#include "core/amx.h"
#include "core/cpu_features.h"
#include "core/error.h"
#include "gemm/cpu/float_w_row_avx2.h"
#include "gemm/cpu/integer_amx.h"
#include "gemm/requirements.h"

namespace octavo {

inline Status anywhere() { return {}; }

inline Status needs_amx_int8() {
  if (!cpu_features().amx_int8) return unsupported("this processor has no AMX-INT8");
  if (!amx_permitted()) return unsupported("the system gives this process no AMX tiles");
  return {};
}

inline Status needs_amx_bf16() {
  if (!cpu_features().amx_bf16) return unsupported("this processor has no AMX-BF16");
  if (!amx_permitted()) return unsupported("the system gives this process no AMX tiles");
  return {};
}

inline Status needs_avx_vnni() {
  if (cpu_features().avx_vnni) return {};
  return unsupported("this processor has no AVX-VNNI");
}

inline Status needs_avx512_vnni() {
  if (cpu_features().avx512_vnni) return {};
  return unsupported("this processor has no AVX-512 VNNI");
}

inline Status needs_avx2() {
  if (cpu_features().avx2) return {};
  return unsupported("this processor has no AVX2");
}

inline Status needs_avx512() {
  if (cpu_features().avx512) return {};
  return unsupported("this processor has no AVX-512");
}

inline Status needs_avx512_bf16() {
  if (cpu_features().avx512_bf16) return {};
  return unsupported("this processor has no AVX-512-BF16");
}

// Packed weights hold one a byte or two a byte by their bits alone.
inline std::string needs_more_than_4_bits(const Problem& p) {
  return p.format.num_bits <= 4 ? "weights have no more than 4 bits" : "";
}

inline std::string needs_4_bits(const Problem& p) { return p.format.num_bits > 4 ? "weights have more than 4 bits" : ""; }

inline std::string needs_bf16_x(const Problem& p) { return p.activation != DType::kBFloat16 ? "x is not bf16" : ""; }

// Processors with tiles do VDPBF16PS at a fraction of the rate of fp32: half as fast there as cpu_float_*_avx512.
inline std::string needs_fast_vdpbf16ps(const Problem& p) {
  if (cpu_features().amx_bf16) return "processors with AMX-BF16 multiply bf16 in vectors slower than fp32";
  return needs_bf16_x(p);
}

inline std::string needs_many_bf16_rows(const Problem& p) { return p.M < kAmxMinRows ? "x has few rows" : needs_bf16_x(p); }

inline std::string needs_many_rows(const Problem& p) {
  return p.M < kAmxMinRows ? format_text("x has {} rows, it is for {} and more", p.M, kAmxMinRows) : "";
}

inline std::string needs_many_rows_and_whole_tiles(const Problem& p) {
  if (p.format.group_size % kAmxGroupMultiple != 0) {
    return format_text("groups have {} weights, it takes multiples of {}", p.format.group_size, kAmxGroupMultiple);
  }
  return p.M < kAmxMinGroupedRows ? format_text("x has {} rows, it is for {} and more", p.M, kAmxMinGroupedRows) : "";
}

inline std::string needs_few_rows(const Problem& p) {
  if (p.M <= kFloatRowAvx2MaxRows) return {};
  return format_text("x has {} rows, it is for up to {}", p.M, kFloatRowAvx2MaxRows);
}

inline std::string needs_groups_of_whole_bytes(const Problem& p) {
  if (p.format.group_size <= 0 || p.format.group_size % 2 == 0) return {};
  return format_text("groups of {} begin in the middle of a byte", p.format.group_size);
}

}  // namespace octavo
