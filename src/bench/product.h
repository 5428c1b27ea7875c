// A product as users call it, with its activations and results.
#pragma once

#include "bench/cases.h"
#include "bench/cold_weights.h"
#include "core/aligned_buffer.h"

namespace octavo::bench {

class Product {
 public:
  // x is close to normal, with some large columns as language models have.
  Product(const Case& c, const Shape& shape);

  // Everything between x and y: quantization of x too, where the scheme has it.
  Status run(const ColdWeights::Copy& w, Parallel& parallel) const;

 private:
  template <class Weight>
  Status run_with(const Weight& w, Parallel& parallel) const;

  Op op_;
  AlignedBuffer<std::byte> x_data_, y_data_;
  MutableMatrixView x_, y_;
};

}  // namespace octavo::bench
