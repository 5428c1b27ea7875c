// Instructions that CUDA C++ has no word for.
#pragma once

#include <cstdint>

namespace octavo::ptx {

// A pointer into shared memory as instructions take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Words into shared memory.
__device__ __forceinline__ void store_shared(std::uint32_t to, std::uint32_t v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
__device__ __forceinline__ void store_shared(std::uint32_t to, std::uint32_t v, std::uint32_t w) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(v), "r"(w) : "memory");
}
__device__ __forceinline__ void store_shared(std::uint32_t to, std::uint32_t v, std::uint32_t w, std::uint32_t x,
                                             std::uint32_t y) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v), "r"(w), "r"(x), "r"(y) : "memory");
}

// A value in a register of the thread's own, by adding a zero that the compiler takes for unknown: it would compute again
// what follows from the thread's number for every use, and copy constants from a uniform register where an instruction has
// more than the one immediate it takes.
__device__ __forceinline__ std::uint32_t in_register(std::uint32_t known) {
  std::uint32_t value;
  asm volatile("{\n.reg .b32 zero;\nmov.u32 zero, %%lanemask_lt;\nshr.u32 zero, zero, 31;\nadd.u32 %0, zero, %1;\n}"
               : "=r"(value)
               : "r"(known));
  return value;
}

// Programmatic dependent launch: a kernel may start while the ones in front of it on the stream still run, so that it can
// load its weights meanwhile. What makes that safe, for every kernel of ours:
// - before wait_for_predecessor() returns, a thread reads at most weights that, says the caller, no kernel in front of it
//   writes (Arguments::constant_w). All else, read or written, comes after it, in every thread that does;
// - some thread of every CTA waits, also in a CTA that has nothing to do. So when a kernel gets past its wait, not only its
//   predecessor is complete, but everything before that too, and launch_dependents() may be called at any time. Kernels of
//   others that are launched so must wait, and behind ours before they read anything, as torch.compile's do (but for those
//   of torch 2.11 that read nothing: they never wait, so behind them only their own end is certain);
// - a kernel that writes int8 matrices which somebody may take for weights calls it only when they are written: the next
//   kernel but one may read them before its wait. That is care beyond what CUDA promises, which makes writes visible to
//   whoever has waited; it is the caller who says with constant_w that a weight is complete. Activations that a fused kernel
//   quantizes are nobody's weights. Kernels that quantize weights never call it, and are launched with dependent = false.
// Both are nothing on GPUs before compute capability 9.0, whose kernels start when their predecessor has ended.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace octavo::ptx
