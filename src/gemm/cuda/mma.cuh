// Instructions of compute capability 8.0 and more: asynchronous copies into shared memory, fragments out of it, products.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "core/ptx.cuh"

namespace octavo::cuda {

using ptx::shared_address;

// Sixteen bytes into shared memory at `target`: from `source`, or zeros, and then the source may be anywhere.
__device__ inline void copy16_async(std::uint32_t target, const void* source, bool real) {
  asm volatile(
      "{\n"
      ".reg .pred zeros;\n"
      "setp.eq.s32 zeros, %2, 0;\n"
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, zeros;\n"
      "}\n" ::"r"(target),
      "l"(source), "r"(static_cast<int>(real))
      : "memory");
}

// 4, 8 or 16 bytes through the first-level cache, for neighbours that are asked for soon.
template <int kBytes>
__device__ inline void copy_cached_async(std::uint32_t target, const void* source) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(target), "l"(source), "n"(kBytes) : "memory");
}

// Four bytes: the first `bytes` from `source`, zeros behind them. Reads no more than that.
__device__ inline void copy4_async(std::uint32_t target, const void* source, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
}

// The aligned four bytes around a byte of an array of which `last` is the last one; and the byte out of them.
__device__ __forceinline__ void copy_word_around_async(std::uint32_t target, const std::uint8_t* byte,
                                                       const std::uint8_t* last) {
  const std::uint8_t* word = byte - (reinterpret_cast<std::uintptr_t>(byte) & 3);
  copy4_async(target, word, last - word < 3 ? static_cast<int>(last - word) + 1 : 4);
}
__device__ __forceinline__ unsigned byte_in_word(const std::uint8_t* byte) {
  return static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(byte) & 3);
}
__device__ __forceinline__ std::uint32_t byte_of_word(std::uint32_t word, const std::uint8_t* byte) {
  return __byte_perm(word, 0, 0x4440 | (static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(byte)) & 3));
}

// Ends a group of this thread's copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until no more than the last `kPending` groups of this thread are under way.
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ inline void store16_shared(std::uint32_t target, const std::uint32_t (&v)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
               : "memory");
}

// Words out of shared memory.
__device__ __forceinline__ void load_shared(std::uint32_t (&v)[1], std::uint32_t address) {
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v[0]) : "r"(address) : "memory");
}
__device__ __forceinline__ void load_shared(std::uint32_t (&v)[2], std::uint32_t address) {
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "r"(address) : "memory");
}
__device__ __forceinline__ uint4 load16_shared(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

// Four matrices of 8 rows x 16 bytes. Lanes 8i … 8i+7 give the addresses of the rows of matrix i; lane l gets in f[i] bytes
// 4(l % 4) … +3 of row l / 4.
__device__ inline void load_matrices(std::uint32_t (&f)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
               : "r"(address)
               : "memory");
}

// c [16, 8] += a [16, 32] · b [8, 32]ᵀ, exact modulo 2^32. Of a, matrices (rows 0-7, bytes 0-15), (8-15, 0-15), (0-7,
// 16-31), (8-15, 16-31); of b, bytes 0-15 and 16-31; lane l holds c[l / 4][2(l % 4) + {0, 1}] and, eight rows below, c[2]
// and c[3].
__device__ inline void multiply_s8(std::int32_t (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d [16, 8] += a [16, 16] · b [8, 16]ᵀ in float32. Lane 4g + t has of a pairs along K of rows g (a0, a2) and g + 8 (a1, a3),
// of b those of row g (b0 meets a0 and a1, b1 meets a2 and a3), and d[g][2t + {0, 1}] and, eight rows below, d[2] and d[3].
__device__ __forceinline__ void multiply(__half /*x*/, float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(__nv_bfloat16 /*x*/, float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                         std::uint32_t a2, std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace octavo::cuda
