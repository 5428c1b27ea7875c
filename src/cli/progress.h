#pragma once

#include <chrono>

#include "octavo/checkpoint.h"

namespace octavo::cli {

// Shows how far a job is, on stderr: one line that is redrawn on a terminal, else a line every ten seconds.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const Progress& progress);
  // Takes the line off the terminal, so that other text can follow.
  void clear();
  double seconds() const;

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_;
  double next_ = 0;  // seconds after start_
};

}  // namespace octavo::cli
