// What is timed: schemes with a type of activations, shapes, and how a problem of the kernel table follows from them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "octavo/gemm.h"
#include "octavo/scheme.h"

namespace octavo::bench {

struct Case {
  Scheme scheme;
  DType activation = DType::kBFloat16;  // of x and y
};

// "w8a16", or "w8a16:float32" with the type of x. Fails for static activation scales, which are no product of their own.
Result<Case> parse_case(std::string_view text);

// Every kind of product once; weight-only with both types of x. On CUDA those that it has kernels for.
std::vector<Case> default_cases(DeviceType device = DeviceType::kCpu);

struct Shape {
  std::int64_t M, N, K;
};

// "MxNxK", or "NxK", which is taken with every M of `rows`.
Result<std::vector<Shape>> parse_shape(std::string_view text, const std::vector<std::int64_t>& rows);

// The operation of the kernel table that a scheme runs on.
Op op_of(const Scheme& scheme);

// What the kernel for a product is chosen by.
Problem problem_of(const Case& c, const Shape& shape, Layout layout);

}  // namespace octavo::bench
