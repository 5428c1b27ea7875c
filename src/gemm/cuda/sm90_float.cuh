// Hopper's products of fp16 and bf16 with sums in fp32 (wgmma), whose first operand stands in registers, and the shared
// memory instructions around them. PTX ISA 8.x is the reference for every one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace octavo::sm90 {

// Keeps the compiler from moving accesses to sums across this point.
template <int kCount>
__device__ __forceinline__ void fence_registers(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// The first operand of a product, 64 x 16: thread t of the warpgroup holds rows r = t / 32 · 16 + t % 32 / 4 and r + 8, two
// neighbours along K in a register: r and r + 8 at K = t % 4 · 2, then both at 8 more.
struct Fragment {
  std::uint32_t pairs[4];
};

// d[64 x kN] (+)= a[64 x 16] · b[kN x 16]ᵀ, b by tile_descriptor(). Thread t holds rows r and r + 8 as above: d[4j] and
// d[4j + 1] are columns 8j + t % 4 · 2 and the next one of row r, d[4j + 2] and d[4j + 3] the same of row r + 8.
template <class X, int kN>
struct FloatWgmma;

#define OCTAVO_UP_TO_3(t) "%" t "0, %" t "1, %" t "2, %" t "3"
#define OCTAVO_UP_TO_5(t) OCTAVO_UP_TO_3(t) ", %" t "4, %" t "5"
#define OCTAVO_UP_TO_7(t) OCTAVO_UP_TO_5(t) ", %" t "6, %" t "7"
#define OCTAVO_UP_TO_9(t) OCTAVO_UP_TO_7(t) ", %" t "8, %" t "9"
#define OCTAVO_TEN(t) OCTAVO_UP_TO_9(t) ", "
#define OCTAVO_60 OCTAVO_TEN("") OCTAVO_TEN("1") OCTAVO_TEN("2") OCTAVO_TEN("3") OCTAVO_TEN("4") OCTAVO_TEN("5")
#define OCTAVO_80 OCTAVO_60 OCTAVO_TEN("6") OCTAVO_TEN("7")
#define OCTAVO_100 OCTAVO_80 OCTAVO_TEN("8") OCTAVO_TEN("9")
#define OCTAVO_120 OCTAVO_100 OCTAVO_TEN("10") OCTAVO_TEN("11")
#define OCTAVO_D4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define OCTAVO_D8(i) OCTAVO_D4(i), OCTAVO_D4((i) + 4)
#define OCTAVO_D16(i) OCTAVO_D8(i), OCTAVO_D8((i) + 8)
#define OCTAVO_D32(i) OCTAVO_D16(i), OCTAVO_D16((i) + 16)
#define OCTAVO_D64(i) OCTAVO_D32(i), OCTAVO_D32((i) + 32)

#define OCTAVO_WGMMA(type, name, n, names, a0, a1, a2, a3, b, p, ...)                                                       \
  template <>                                                                                                               \
  struct FloatWgmma<type, n> {                                                                                              \
    __device__ __forceinline__ static void multiply(float (&d)[n / 2], const Fragment& a, std::uint64_t b_tile, bool add) { \
      asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p                                                              \
                   ", 0;\n"                                                                                                 \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name "." name " {" names "}, {%" #a0 ", %" #a1         \
                   ", %" #a2 ", %" #a3 "}, %" #b ", add, 1, 1, 0;\n}"                                                       \
                   : __VA_ARGS__                                                                                            \
                   : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "l"(b_tile),                       \
                     "r"(static_cast<int>(add)));                                                                           \
    }                                                                                                                       \
  };
#define OCTAVO_WGMMAS(type, name)                                                                                           \
  OCTAVO_WGMMA(type, name, 32, OCTAVO_TEN("") OCTAVO_UP_TO_5("1"), 16, 17, 18, 19, 20, 21, OCTAVO_D16(0))                   \
  OCTAVO_WGMMA(type, name, 64, OCTAVO_TEN("") OCTAVO_TEN("1") OCTAVO_TEN("2") "%30, %31", 32, 33, 34, 35, 36, 37,           \
               OCTAVO_D32(0))                                                                                               \
  OCTAVO_WGMMA(type, name, 128, OCTAVO_60 OCTAVO_UP_TO_3("6"), 64, 65, 66, 67, 68, 69, OCTAVO_D64(0))                       \
  OCTAVO_WGMMA(type, name, 144, OCTAVO_60 OCTAVO_TEN("6") "%70, %71", 72, 73, 74, 75, 76, 77, OCTAVO_D64(0), OCTAVO_D8(64)) \
  OCTAVO_WGMMA(type, name, 160, OCTAVO_60 OCTAVO_TEN("6") OCTAVO_UP_TO_9("7"), 80, 81, 82, 83, 84, 85, OCTAVO_D64(0),       \
               OCTAVO_D16(64))                                                                                              \
  OCTAVO_WGMMA(type, name, 176, OCTAVO_80 OCTAVO_UP_TO_7("8"), 88, 89, 90, 91, 92, 93, OCTAVO_D64(0), OCTAVO_D16(64),       \
               OCTAVO_D8(80))                                                                                               \
  OCTAVO_WGMMA(type, name, 192, OCTAVO_80 OCTAVO_TEN("8") OCTAVO_UP_TO_5("9"), 96, 97, 98, 99, 100, 101, OCTAVO_D64(0),     \
               OCTAVO_D32(64))                                                                                              \
  OCTAVO_WGMMA(type, name, 208, OCTAVO_100 OCTAVO_UP_TO_3("10"), 104, 105, 106, 107, 108, 109, OCTAVO_D64(0),               \
               OCTAVO_D32(64), OCTAVO_D8(96))                                                                               \
  OCTAVO_WGMMA(type, name, 224, OCTAVO_100 OCTAVO_TEN("10") "%110, %111", 112, 113, 114, 115, 116, 117, OCTAVO_D64(0),      \
               OCTAVO_D32(64), OCTAVO_D16(96))                                                                              \
  OCTAVO_WGMMA(type, name, 240, OCTAVO_100 OCTAVO_TEN("10") OCTAVO_UP_TO_9("11"), 120, 121, 122, 123, 124, 125,             \
               OCTAVO_D64(0), OCTAVO_D32(64), OCTAVO_D16(96), OCTAVO_D8(112))                                               \
  OCTAVO_WGMMA(type, name, 256, OCTAVO_120 OCTAVO_UP_TO_7("12"), 128, 129, 130, 131, 132, 133, OCTAVO_D64(0), OCTAVO_D64(64))
OCTAVO_WGMMAS(__half, "f16")
OCTAVO_WGMMAS(__nv_bfloat16, "bf16")

#undef OCTAVO_WGMMAS
#undef OCTAVO_WGMMA
#undef OCTAVO_D64
#undef OCTAVO_D32
#undef OCTAVO_D16
#undef OCTAVO_D8
#undef OCTAVO_D4
#undef OCTAVO_120
#undef OCTAVO_100
#undef OCTAVO_80
#undef OCTAVO_60
#undef OCTAVO_TEN
#undef OCTAVO_UP_TO_9
#undef OCTAVO_UP_TO_7
#undef OCTAVO_UP_TO_5
#undef OCTAVO_UP_TO_3

// Two 8 x 8 matrices of 16-bit elements, held as the sums of products are (two columns of row t % 32 / 4 a thread), to
// shared memory, transposed: lane l < 16 names where column l % 8 of matrix l / 8 goes, 16 bytes.
__device__ __forceinline__ void store_transposed(std::uint32_t to, std::uint32_t first, std::uint32_t second) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(first), "r"(second)
               : "memory");
}

__device__ __forceinline__ void store_four(std::uint32_t to, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
__device__ __forceinline__ float4 load_four(std::uint32_t from) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(from)
               : "memory");
  return v;
}

// Stores to a CTA of the cluster, and tells a barrier there, by in_cta() both.
__device__ __forceinline__ void send_four(std::uint32_t to, float4 v, std::uint32_t barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
               "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(barrier)
               : "memory");
}

}  // namespace octavo::sm90
