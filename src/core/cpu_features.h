// What this machine's processor can run, from CPUID, and whether the operating system saves the registers it needs.
#pragma once

#include <string>

namespace octavo {

struct CpuFeatures {
  bool avx2 = false;  // with FMA and F16C, as on every processor that has AVX2
  bool avx_vnni = false;
  bool avx512 = false;  // F, BW, DQ and VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
};

// Read once.
const CpuFeatures& cpu_features();

// "avx2 avx512 avx512_vnni …"; "none" for a processor with none of them.
std::string to_string(const CpuFeatures& features);

}  // namespace octavo
