// Instructions of compute capability 8.0 and more: asynchronous copies into shared memory, fragments out of it, integer
// products.
#pragma once

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

// Four bytes: the first `bytes` from `source`, zeros behind them. Reads no more than that.
__device__ inline void copy4_async(std::uint32_t target, const void* source, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
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

}  // namespace octavo::cuda
