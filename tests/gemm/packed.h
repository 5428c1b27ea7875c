// A packed weight that owns its memory, for tests. Like those of test::Matrix, its buffer ends where a page without access
// begins; since its size is a multiple of 64 bytes, it is aligned all the same.
#pragma once

#include <cstdlib>

#include "matrix.h"
#include "octavo/pack.h"

namespace octavo::test {

class Packed {
 public:
  // w must have something to pack: N and K of at least 1.
  explicit Packed(const QuantizedWeight& w) : w_{Layout::kBlock64, w.format, w.q.rows, w.q.cols, {}} {
    const auto bytes = packed_bytes(w_.layout, w_.format, w_.N, w_.K);
    if (!bytes.ok()) std::abort();
    buffer_ = Matrix(DType::kUInt8, 1, *bytes);
    w_.data = {buffer_.mut().row<std::byte>(0), static_cast<std::size_t>(*bytes)};
    if (!pack(w, w_).ok()) std::abort();
  }

  PackedWeight view() const { return as_const(w_); }

 private:
  Matrix buffer_;
  MutablePackedWeight w_;
};

}  // namespace octavo::test
