// What rows of the kernel table ask of a problem: each function says why a row does not take it, and nothing where it does.
// What they ask of a processor or a GPU is in cpu/requirements.h and cuda/requirements.h.
#pragma once

#include <string>

#include "core/error.h"
#include "octavo/gemm.h"

namespace octavo {

// Why a row does not run a problem. Rows of packed weights refuse in plain words: what a decoding model asks of the table
// takes some 40 ns then, and 150 more for every text that is put together.
inline std::string any_problem(const Problem&) { return {}; }

inline std::string needs_bytes(const Problem& p) {
  return bits_of(p.weight) == 4 ? format_text("weights are {}, it reads one a byte", to_string(p.weight)) : "";
}

inline std::string needs_nibbles(const Problem& p) {
  return bits_of(p.weight) == 8 ? format_text("weights are {}, it reads two a byte", to_string(p.weight)) : "";
}

// The first reason of several.
template <std::string (*... kAsked)(const Problem&)>
std::string all_of(const Problem& p) {
  std::string reason;
  (void)((reason = kAsked(p), reason.empty()) && ...);
  return reason;
}

}  // namespace octavo
