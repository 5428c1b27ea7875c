// Hopper's instructions, one function each: barriers in shared memory, the tensor copy engine (TMA), and products of
// warpgroups (wgmma). PTX ISA 8.x is the reference for every one.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "core/ptx.cuh"

namespace octavo::sm90 {

using ptx::shared_address;

// One thread of a whole warp. (Of `lane == 0` the compiler does not know that it is one, and makes loops of what takes
// uniform registers.)
__device__ __forceinline__ bool elected() {
  std::uint32_t is;
  asm volatile(
      "{\n.reg .pred is;\n"
      "elect.sync _|is, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, is;\n}"
      : "=r"(is));
  return is != 0;
}

// --- Clusters ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Among the clusters of the grid, which go along x.
__device__ __forceinline__ std::uint32_t cluster_number() {
  std::uint32_t number;
  asm volatile("mov.u32 %0, %%clusterid.x;" : "=r"(number));
  return number;
}

// The same place in shared memory of a CTA of the cluster.
__device__ __forceinline__ std::uint32_t in_cta(std::uint32_t address, std::uint32_t cta) {
  std::uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(cta));
  return there;
}

// All threads of a cluster say that their CTA has begun, and initialized its barriers; who uses those of another CTA waits
// for that before.
__device__ __forceinline__ void cluster_begun() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait_begun() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// --- Barriers in shared memory (mbarrier): a phase ends when `count` arrivals and all announced bytes are in ------------

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, std::uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}

// Makes initialized barriers visible to the other CTAs of the cluster and to the copy engine.
__device__ __forceinline__ void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Arrives at a barrier of this CTA.
__device__ __forceinline__ void barrier_arrive_here(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same at a barrier of a CTA of the cluster, by in_cta().
__device__ __forceinline__ void barrier_arrive_in_cluster(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase of this parity has ended.
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Whether it has, without waiting.
__device__ __forceinline__ bool barrier_test(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n.reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

// Arrives when all copies that this thread has asked for (cp.async) are there.
__device__ __forceinline__ void barrier_arrive_when_copied(std::uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// A place in a ring, and how often it has come round (modulo 2).
struct Stage {
  int index = 0;
  std::uint32_t phase = 0;
  __device__ void advance(int stages) {
    if (++index < stages) return;
    index = 0;
    phase ^= 1;
  }
};

// --- Barriers of some of a CTA's warps (bar), by number
// ---------------------------------------------------------------------

__device__ __forceinline__ void meet(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void announce(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// --- The tensor copy engine: boxes of a matrix in global memory to shared memory, zeros beyond its edges ----------------

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Copies the box at (column, row), and tells the barrier of its bytes.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap& map, int column, int row,
                                         std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same of boxes side by side, the first of them box number `first` of the row.
__device__ __forceinline__ void copy_boxes(std::uint32_t to, const CUtensorMap& map, int first, int row,
                                           std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
          to),
      "l"(&map), "r"(0), "r"(row), "r"(first), "r"(barrier)
      : "memory");
}

// Copies neighbouring bytes, a multiple of 16, to the same place in both CTAs of a cluster, and tells the barrier of each.
__device__ __forceinline__ void copy_to_both(std::uint32_t to, const void* from, std::uint32_t bytes,
                                             std::uint32_t barrier) {
  constexpr std::uint16_t kBoth = 0b11;
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
          to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(kBoth)
      : "memory");
}

// A box of shared memory to the matrix at (column, row); what is beyond its edges is left out. A thread's copies are done in
// groups, which it commits.
__device__ __forceinline__ void write_box(const CUtensorMap& map, int column, int row, std::uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(column),
               "r"(row), "r"(from)
               : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until the shared memory of all but the last kPending groups has been read.
template <int kPending>
__device__ __forceinline__ void copies_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// Makes what a thread has written to shared memory visible to the copy engine.
__device__ __forceinline__ void fence_for_copy_engine() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- wgmma: the product of a warpgroup -----------------------------------------------------------------------------------

// A tile in shared memory of rows of 128 bytes, K contiguous, with the 128-byte swizzle of the copy engine: 8 rows make a
// pattern of 1024 bytes. The address may be moved by up to 128 bytes along K.
__device__ __forceinline__ constexpr std::uint64_t tile_descriptor(std::uint32_t address) {
  constexpr std::uint64_t kPatternBytes = 1024, kSwizzle128 = 1;
  return (address & 0x3ffff) >> 4 | std::uint64_t{1} << 16 | kPatternBytes >> 4 << 32 | kSwizzle128 << 62;
}

// Orders a thread's registers and shared memory before the products that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most `kPending` committed groups are not yet done.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving accesses to a register across this point.
template <int kCount>
__device__ __forceinline__ void fence_registers(std::int32_t (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

// "%T0, %T1 … %T7" and so on: the names of accumulators in assembly, ten of a number T of tens, without the last comma.
#define OCTAVO_UP_TO_1(t) "%" t "0, %" t "1"
#define OCTAVO_UP_TO_5(t) OCTAVO_UP_TO_1(t) ", %" t "2, %" t "3, %" t "4, %" t "5"
#define OCTAVO_UP_TO_7(t) OCTAVO_UP_TO_5(t) ", %" t "6, %" t "7"
#define OCTAVO_TEN(t) OCTAVO_UP_TO_7(t) ", %" t "8, %" t "9, "
#define OCTAVO_30 OCTAVO_TEN("") OCTAVO_TEN("1") OCTAVO_TEN("2")
#define OCTAVO_60 OCTAVO_30 OCTAVO_TEN("3") OCTAVO_TEN("4") OCTAVO_TEN("5")
#define OCTAVO_90 OCTAVO_60 OCTAVO_TEN("6") OCTAVO_TEN("7") OCTAVO_TEN("8")
#define OCTAVO_120 OCTAVO_90 OCTAVO_TEN("9") OCTAVO_TEN("10") OCTAVO_TEN("11")
// The accumulators themselves, as operands.
#define OCTAVO_D4(i) "+r"(d[i]), "+r"(d[(i) + 1]), "+r"(d[(i) + 2]), "+r"(d[(i) + 3])
#define OCTAVO_D16(i) OCTAVO_D4(i), OCTAVO_D4((i) + 4), OCTAVO_D4((i) + 8), OCTAVO_D4((i) + 12)
#define OCTAVO_D32(i) OCTAVO_D16(i), OCTAVO_D16((i) + 16)
#define OCTAVO_D64(i) OCTAVO_D32(i), OCTAVO_D32((i) + 32)

// d[64 x kN] (+)= a[64 x 32] · b[kN x 32]ᵀ, int8 with int32 sums, both operands by tile_descriptor(). Thread t of the
// warpgroup holds rows r = t / 32 · 16 + t % 32 / 4 and r + 8: d[4j] and d[4j + 1] are columns 8j + t % 4 · 2 and the next
// one of row r, d[4j + 2] and d[4j + 3] the same of row r + 8.
template <int kN>
struct Wgmma;

#define OCTAVO_WGMMA(n, names, a, b, p, ...)                                                                              \
  template <>                                                                                                             \
  struct Wgmma<n> {                                                                                                       \
    __device__ __forceinline__ static void multiply(std::int32_t (&d)[n / 2], std::uint64_t a_tile, std::uint64_t b_tile, \
                                                    bool add) {                                                           \
      asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #p                                                            \
                   ", 0;\n"                                                                                               \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" names "}, %" #a ", %" #b ", add;\n}"          \
                   : __VA_ARGS__                                                                                          \
                   : "l"(a_tile), "l"(b_tile), "r"(static_cast<int>(add)));                                               \
    }                                                                                                                     \
  };
OCTAVO_WGMMA(32, OCTAVO_TEN("") OCTAVO_UP_TO_5("1"), 16, 17, 18, OCTAVO_D16(0))
OCTAVO_WGMMA(64, OCTAVO_30 OCTAVO_UP_TO_1("3"), 32, 33, 34, OCTAVO_D32(0))
OCTAVO_WGMMA(128, OCTAVO_60 "%60, %61, %62, %63", 64, 65, 66, OCTAVO_D64(0))
OCTAVO_WGMMA(192, OCTAVO_90 OCTAVO_UP_TO_5("9"), 96, 97, 98, OCTAVO_D64(0), OCTAVO_D32(64))
OCTAVO_WGMMA(224, OCTAVO_90 OCTAVO_TEN("9") OCTAVO_TEN("10") OCTAVO_UP_TO_1("11"), 112, 113, 114, OCTAVO_D64(0),
             OCTAVO_D32(64), OCTAVO_D16(96))
OCTAVO_WGMMA(256, OCTAVO_120 OCTAVO_UP_TO_7("12"), 128, 129, 130, OCTAVO_D64(0), OCTAVO_D64(64))

#undef OCTAVO_WGMMA
#undef OCTAVO_D64
#undef OCTAVO_D32
#undef OCTAVO_D16
#undef OCTAVO_D4
#undef OCTAVO_120
#undef OCTAVO_90
#undef OCTAVO_60
#undef OCTAVO_30
#undef OCTAVO_TEN
#undef OCTAVO_UP_TO_7
#undef OCTAVO_UP_TO_5
#undef OCTAVO_UP_TO_1

// --- Registers: warpgroups that only copy leave theirs to those that multiply -------------------------------------------

template <int kCount>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

}  // namespace octavo::sm90
