// Intrinsics of x86-64, and what marks a function as compiled for an instruction set. Functions carry the mark instead of
// files carrying flags, so that no inline function of a shared header is compiled for AVX2 and picked by the linker for
// everyone. A function with a mark runs only where cpu_features() has the set.
#pragma once

#if defined(__x86_64__)

// GCC 12 warns of its own undefined operands in these headers (gcc.gnu.org/PR105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#define OCTAVO_AVX2_SET "avx2,fma,f16c"
#define OCTAVO_AVX512_SET OCTAVO_AVX2_SET ",avx512f,avx512bw,avx512dq,avx512vl"

#define OCTAVO_AVX2 __attribute__((target(OCTAVO_AVX2_SET)))
#define OCTAVO_AVX2_INLINE __attribute__((target(OCTAVO_AVX2_SET), always_inline)) inline
#define OCTAVO_AVX_VNNI __attribute__((target(OCTAVO_AVX2_SET ",avxvnni")))
#define OCTAVO_AVX_VNNI_INLINE __attribute__((target(OCTAVO_AVX2_SET ",avxvnni"), always_inline)) inline
#define OCTAVO_AVX512 __attribute__((target(OCTAVO_AVX512_SET)))
#define OCTAVO_AVX512_INLINE __attribute__((target(OCTAVO_AVX512_SET), always_inline)) inline
#define OCTAVO_AVX512_VNNI __attribute__((target(OCTAVO_AVX512_SET ",avx512vnni")))
#define OCTAVO_AVX512_VNNI_INLINE __attribute__((target(OCTAVO_AVX512_SET ",avx512vnni"), always_inline)) inline
#define OCTAVO_AVX512_BF16 __attribute__((target(OCTAVO_AVX512_SET ",avx512bf16")))
#define OCTAVO_AVX512_BF16_INLINE __attribute__((target(OCTAVO_AVX512_SET ",avx512bf16"), always_inline)) inline
#define OCTAVO_AMX_INT8 __attribute__((target(OCTAVO_AVX512_SET ",amx-tile,amx-int8")))
#define OCTAVO_AMX_BF16 __attribute__((target(OCTAVO_AVX512_SET ",avx512bf16,amx-tile,amx-bf16")))

// Before a loop over a register tile: only when it is unrolled completely do the tile's registers stay registers.
#define OCTAVO_UNROLL _Pragma("GCC unroll 16")

#endif  // __x86_64__
