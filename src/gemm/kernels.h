// The kernel table: one row per kernel, best first. Nothing is chosen anywhere else.
#pragma once

#include <span>
#include <string>

#include "gemm/arguments.h"

namespace octavo {

struct Kernel {
  std::string_view name;
  Op op;
  DeviceType device;
  Layout layout;  // of the weights it reads
  std::string_view summary;
  Status (*usable)();                              // whether this machine can run it
  std::string (*refuses)(const Problem& problem);  // why not this problem; empty when it can
  void (*run)(const Arguments& a, Parallel& parallel);
  std::string (*yields)(const Problem& problem) = nullptr;  // why a row below does better, unless this one is forced
};

std::span<const Kernel> kernel_table();

// The row that `problem` runs on; see select_kernel(). Where its layout is another than the problem's, the caller packs.
Result<const Kernel*> find_kernel(const Problem& problem);

// The same, or null where no row takes it and none is forced.
Result<const Kernel*> kernel_if_any(const Problem& problem);
// Whether OCTAVO_KERNEL names a row of this operation and device.
bool is_kernel_forced(Op op, DeviceType device);

// The problem that checked arguments are, and its product by the row that find_kernel() chose for it.
Problem problem_of(Op op, const Arguments& a);
Status run_kernel(const Kernel& kernel, const Arguments& a, Parallel& parallel);

// Whether weights have groups that kernels find short: not of whole steps of 64 along K.
inline bool has_short_groups(const Problem& p) { return p.format.groups(p.K) > 1 && p.format.group_size % 64 != 0; }

// The first usable row for a problem that some row of the table runs on every machine that gets here: for kernels that are
// made of another product. OCTAVO_KERNEL does not count.
const Kernel& first_kernel(const Problem& problem);

}  // namespace octavo
