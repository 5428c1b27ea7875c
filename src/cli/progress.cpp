#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/text.h"
#include "core/format.h"

namespace octavo::cli {
namespace {

constexpr double kTerminalInterval = 0.1;
constexpr double kPlainInterval = 10;

}  // namespace

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO) == 1), start_(std::chrono::steady_clock::now()) {
  next_ = terminal_ ? kTerminalInterval : kPlainInterval;
}

double ProgressLine::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void ProgressLine::show(const Progress& progress) {
  const double now = seconds();
  if (now < next_) return;
  next_ = now + (terminal_ ? kTerminalInterval : kPlainInterval);
  const double rate = static_cast<double>(progress.bytes_done) / std::max(now, 1e-9);
  const double left = static_cast<double>(progress.bytes_total - progress.bytes_done) / std::max(rate, 1.0);
  print_text(stderr, "{}{} of {}, {} of {} tensors, {:.2f} GB/s, {} left{}", terminal_ ? "\r\x1b[K" : "",
             format_bytes(progress.bytes_done), format_bytes(progress.bytes_total), progress.tensors_done,
             progress.tensors_total, rate / 1e9, format_seconds(left), terminal_ ? "" : "\n");
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (terminal_ && shown_) print_text(stderr, "\r\x1b[K");
  shown_ = false;
}

}  // namespace octavo::cli
