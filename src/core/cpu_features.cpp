#include "core/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#endif

namespace octavo {
namespace {

#if defined(__x86_64__)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // all zero for a leaf the processor lacks
  return r;
}

constexpr bool bit(std::uint32_t word, int index) { return (word >> index) & 1u; }

std::uint64_t enabled_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

CpuFeatures detect() {
  CpuFeatures features;
  const Registers leaf1 = cpuid(1, 0);
  if (!bit(leaf1.ecx, 27)) return features;  // without OSXSAVE no wide register is saved
  constexpr std::uint64_t kAvxState = 0x6;
  constexpr std::uint64_t kAvx512State = 0xe6;
  constexpr std::uint64_t kAmxState = 0x60000;
  const std::uint64_t state = enabled_state();
  const Registers leaf7 = cpuid(7, 0);
  const Registers leaf7_1 = cpuid(7, 1);

  const bool avx_state = (state & kAvxState) == kAvxState;
  features.avx2 = avx_state && bit(leaf7.ebx, 5) && bit(leaf1.ecx, 12) && bit(leaf1.ecx, 29);
  features.avx_vnni = features.avx2 && bit(leaf7_1.eax, 4);
  features.avx512 = features.avx2 && (state & kAvx512State) == kAvx512State && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) &&
                    bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);
  features.avx512_vnni = features.avx512 && bit(leaf7.ecx, 11);
  features.avx512_bf16 = features.avx512 && bit(leaf7_1.eax, 5);
  const bool amx_tile = (state & kAmxState) == kAmxState && bit(leaf7.edx, 24);
  features.amx_int8 = amx_tile && bit(leaf7.edx, 25);
  features.amx_bf16 = amx_tile && bit(leaf7.edx, 22);
  return features;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string to_string(const CpuFeatures& features) {
  std::string text;
  const auto add = [&text](bool present, const char* name) {
    if (present) text += (text.empty() ? "" : " ") + std::string(name);
  };
  add(features.avx2, "avx2");
  add(features.avx_vnni, "avx_vnni");
  add(features.avx512, "avx512");
  add(features.avx512_vnni, "avx512_vnni");
  add(features.avx512_bf16, "avx512_bf16");
  add(features.amx_int8, "amx_int8");
  add(features.amx_bf16, "amx_bf16");
  return text.empty() ? "none" : text;
}

}  // namespace octavo
