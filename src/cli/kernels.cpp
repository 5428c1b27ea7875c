#include <algorithm>

#include "checkpoint/json.h"
#include "cli/verb.h"
#include "core/format.h"
#include "octavo/gemm.h"

namespace octavo::cli {

int kernels(int argc, char** argv) {
  CLI::App app("Lists the kernels in the order in which they are tried, and why some cannot run on this machine.",
               "octavo kernels");
  bool json = false;
  app.add_flag("--json", json, "as JSON");
  app.footer("OCTAVO_KERNEL=NAME forces one.\n\nExample:\n  octavo kernels");
  if (const auto code = parse(app, argc, argv)) return *code;

  const std::vector<KernelInfo> list = list_kernels();
  if (json) {
    Json rows = Json::array();
    for (const KernelInfo& kernel : list) {
      rows.push_back({{"name", kernel.name},
                      {"op", to_string(kernel.op)},
                      {"device", kernel.device == DeviceType::kCpu ? "cpu" : "cuda"},
                      {"layout", to_string(kernel.layout)},
                      {"summary", kernel.summary},
                      {"usable", kernel.usable.ok()},
                      {"reason", kernel.usable.ok() ? Json(nullptr) : Json(kernel.usable.message())}});
    }
    print_text("{}", to_text(rows));
    return kOk;
  }
  std::size_t name_width = 0;
  std::size_t op_width = 0;
  for (const KernelInfo& kernel : list) {
    name_width = std::max(name_width, kernel.name.size());
    op_width = std::max(op_width, to_string(kernel.op).size());
  }
  for (const KernelInfo& kernel : list) {
    print_text("{:{}}  {:{}}  {:3}  {}\n", kernel.name, name_width, to_string(kernel.op), op_width,
               kernel.usable.ok() ? "yes" : "no", kernel.usable.ok() ? kernel.summary : kernel.usable.message());
  }
  return kOk;
}

}  // namespace octavo::cli
