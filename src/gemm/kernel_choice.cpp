// Which row of the kernel table a problem runs on, and why not on others.
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "core/macros.h"
#include "gemm/kernels.h"

namespace octavo {
namespace {

// From so many rows of x on, packing a row-major weight for one product costs less than a kernel without packing.
constexpr std::int64_t kRowsWorthPacking = 32;

// Whether this machine can run the rows of a device, asked once; of CUDA only when something runs there, because asking
// starts the driver, after which a process should not fork.
template <DeviceType kDevice>
bool usable_on(const Kernel& kernel) {
  static const auto answers = [] {
    std::vector<std::uint8_t> rows;
    for (const Kernel& row : kernel_table()) rows.push_back(row.device == kDevice && row.usable().ok());
    return rows;
  }();
  return answers[static_cast<std::size_t>(&kernel - kernel_table().data())] != 0;
}

bool usable(const Kernel& kernel) {
  return kernel.device == DeviceType::kCpu ? usable_on<DeviceType::kCpu>(kernel) : usable_on<DeviceType::kCuda>(kernel);
}

// What keeps a row from a problem, before it is asked itself.
enum class Obstacle : std::uint8_t { kNone, kOp, kDevice, kMachine, kLayout, kFewRows };

// A forced row packs whatever it costs.
Obstacle obstacle(const Kernel& kernel, const Problem& problem, bool forced = false) {
  if (kernel.op != problem.op) return Obstacle::kOp;
  if (kernel.device != problem.device.type) return Obstacle::kDevice;
  if (!usable(kernel)) return Obstacle::kMachine;
  if (kernel.layout == problem.layout) return Obstacle::kNone;
  if (problem.layout != Layout::kRowMajor || problem.N == 0 || problem.K == 0) return Obstacle::kLayout;
  return problem.M < kRowsWorthPacking && !forced ? Obstacle::kFewRows : Obstacle::kNone;
}

// Whether a row runs the problem. No reason is written, which would take longer than a small product does.
bool runs(const Kernel& kernel, const Problem& problem) {
  return obstacle(kernel, problem) == Obstacle::kNone && kernel.refuses(problem).empty() &&
         (kernel.yields == nullptr || kernel.yields(problem).empty());
}

// Why a row does not run the problem; empty when it does.
std::string reason_against(const Kernel& kernel, const Problem& problem, bool forced = false) {
  switch (obstacle(kernel, problem, forced)) {
    case Obstacle::kNone: {
      std::string reason = kernel.refuses(problem);
      return reason.empty() && kernel.yields != nullptr && !forced ? kernel.yields(problem) : reason;
    }
    case Obstacle::kOp:
      return format_text("it computes {}", to_string(kernel.op));
    case Obstacle::kDevice:
      return "it runs on another device";
    case Obstacle::kMachine:
      return kernel.usable().message();
    case Obstacle::kLayout:
      return format_text("weights are {}, it reads {}", to_string(problem.layout), to_string(kernel.layout));
    case Obstacle::kFewRows:
      break;
  }
  return format_text("weights are row-major; packing them for one product pays from {} rows on", kRowsWorthPacking);
}

// The reasons of the rows before `last`; nullptr: of all.
std::vector<Refusal> refusals_before(const Kernel* last, const Problem& problem) {
  std::vector<Refusal> refusals;
  for (const Kernel& kernel : kernel_table()) {
    if (&kernel == last) break;
    if (kernel.op != problem.op || kernel.device != problem.device.type) continue;
    if (std::string reason = reason_against(kernel, problem); !reason.empty()) {
      refusals.push_back({kernel.name, std::move(reason)});
    }
  }
  return refusals;
}

const Kernel* row_named(std::string_view name) {
  for (const Kernel& kernel : kernel_table()) {
    if (kernel.name == name) return &kernel;
  }
  return nullptr;
}

// The kernel that OCTAVO_KERNEL names, if it computes this operation; a name forces only the products it can be meant for.
Result<const Kernel*> forced_kernel(const Problem& problem) {
  const char* name = std::getenv("OCTAVO_KERNEL");
  if (name == nullptr || *name == '\0') return static_cast<const Kernel*>(nullptr);
  const Kernel* kernel = row_named(name);
  if (kernel == nullptr) return not_found("OCTAVO_KERNEL={} names no kernel; `octavo kernels` lists them", name);
  if (kernel->op != problem.op || kernel->device != problem.device.type) return static_cast<const Kernel*>(nullptr);
  if (const std::string reason = reason_against(*kernel, problem, true); !reason.empty()) {
    return unsupported("OCTAVO_KERNEL={} cannot run this: {}", name, reason);
  }
  return kernel;
}

}  // namespace

Result<const Kernel*> find_kernel(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, kernel_if_any(problem));
  if (kernel != nullptr) return kernel;
  std::string all;
  for (const Refusal& refusal : refusals_before(nullptr, problem))
    all += format_text("; {}: {}", refusal.kernel, refusal.reason);
  return unsupported("no kernel computes {} for M={}, N={}, K={}, {} x {}{}", to_string(problem.op), problem.M, problem.N,
                     problem.K, to_string(problem.activation), to_string(problem.weight), all);
}

Result<const Kernel*> kernel_if_any(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* forced, forced_kernel(problem));
  if (forced != nullptr) return forced;
  for (const Kernel& kernel : kernel_table()) {
    if (runs(kernel, problem)) return &kernel;
  }
  return static_cast<const Kernel*>(nullptr);
}

bool is_kernel_forced(Op op, DeviceType device) {
  const char* name = std::getenv("OCTAVO_KERNEL");
  const Kernel* kernel = name == nullptr ? nullptr : row_named(name);
  return kernel != nullptr && kernel->op == op && kernel->device == device;
}

const Kernel& first_kernel(const Problem& problem) {
  for (const Kernel& kernel : kernel_table()) {
    if (runs(kernel, problem)) return kernel;
  }
  std::abort();  // a row asks for a product that no row computes
}

std::vector<KernelInfo> list_kernels() {
  std::vector<KernelInfo> rows;
  for (const Kernel& kernel : kernel_table())
    rows.push_back({kernel.name, kernel.op, kernel.device, kernel.layout, kernel.summary, kernel.usable()});
  return rows;
}

Layout best_layout(Problem problem) {
  if (problem.N == 0 || problem.K == 0) return Layout::kRowMajor;
  for (const Layout layout : {Layout::kBlock64, Layout::kRowMajor}) {
    problem.layout = layout;
    if (find_kernel(problem).ok()) return layout;
  }
  return Layout::kRowMajor;
}

Result<Selection> select_kernel(const Problem& problem) {
  OCTAVO_ASSIGN_OR_RETURN(const Kernel* kernel, find_kernel(problem));
  return Selection{kernel->name, refusals_before(kernel, problem)};
}

}  // namespace octavo
