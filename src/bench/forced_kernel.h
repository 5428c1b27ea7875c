#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace octavo::bench {

// OCTAVO_KERNEL while this lives: a row is forced as a user would force it.
class ForcedKernel {
 public:
  explicit ForcedKernel(const std::string& name) {
    if (const char* before = std::getenv(kVariable)) before_ = before;
    if (!name.empty()) ::setenv(kVariable, name.c_str(), 1);
  }
  ~ForcedKernel() {
    if (before_) {
      ::setenv(kVariable, before_->c_str(), 1);
    } else {
      ::unsetenv(kVariable);
    }
  }
  ForcedKernel(const ForcedKernel&) = delete;
  ForcedKernel& operator=(const ForcedKernel&) = delete;

 private:
  static constexpr const char* kVariable = "OCTAVO_KERNEL";
  std::optional<std::string> before_;
};

}  // namespace octavo::bench
