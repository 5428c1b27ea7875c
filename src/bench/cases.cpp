#include "bench/cases.h"

#include <charconv>
#include <span>

#include "core/error.h"
#include "core/macros.h"

namespace octavo::bench {

Result<Case> parse_case(std::string_view text) {
  const std::size_t colon = text.find(':');
  Case c;
  OCTAVO_ASSIGN_OR_RETURN(c.scheme, parse_scheme(text.substr(0, colon)));
  if (c.scheme.activation == Activation::kInt8Static) {
    return invalid("scheme '{}': a static scale saves only the search for the largest |x|; time w8a8", text);
  }
  if (colon == std::string_view::npos) return c;
  OCTAVO_ASSIGN_OR_RETURN(c.activation, parse_dtype(text.substr(colon + 1)));
  if (!is_float(c.activation) || c.activation == DType::kFloat64) {
    return invalid("'{}': x is float32, float16 or bfloat16", text);
  }
  return c;
}

std::vector<Case> default_cases(DeviceType device) {
  static constexpr const char* kCpu[] = {"w8a16", "w8a16:float32", "w4a16-g128", "w4a16-g128:float32",
                                         "w8a8",  "w4a8-g128",     "w4a8-g32",   "llm.int8"};
  static constexpr const char* kCuda[] = {"w8a16", "w8a16:float16", "w4a16-g128", "w4a16-g128:float16", "w8a8"};
  std::vector<Case> cases;
  for (const char* text : device == DeviceType::kCpu ? std::span<const char* const>(kCpu) : kCuda) {
    cases.push_back(parse_case(text).value());
  }
  return cases;
}

Result<std::vector<Shape>> parse_shape(std::string_view text, const std::vector<std::int64_t>& rows) {
  const Status wrong = invalid("'{}' is no shape; write MxNxK as in 1x4096x4096, or NxK for every M of --rows", text);
  std::vector<std::int64_t> sizes;
  for (std::string_view rest = text;;) {
    std::int64_t size = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), size);
    if (error != std::errc() || size < 1 || size > (std::int64_t{1} << 30)) return wrong;
    sizes.push_back(size);
    if (end == rest.data() + rest.size()) break;
    if (*end != 'x') return wrong;
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()) + 1);
  }
  std::vector<Shape> shapes;
  if (sizes.size() == 3) return std::vector<Shape>{{sizes[0], sizes[1], sizes[2]}};
  if (sizes.size() != 2) return wrong;
  shapes.reserve(rows.size());
  for (const std::int64_t M : rows) shapes.push_back({M, sizes[0], sizes[1]});
  return shapes;
}

Op op_of(const Scheme& scheme) {
  switch (scheme.activation) {
    case Activation::kFloat:
      return Op::kLinear;
    case Activation::kInt8Outliers:
      return Op::kLinearLlmInt8;
    case Activation::kInt8PerToken:
    case Activation::kInt8Static:
      break;
  }
  return scheme.weight.num_bits <= 4 ? Op::kLinearW4A8 : Op::kScaledMm;
}

Problem problem_of(const Case& c, const Shape& shape, Layout layout) {
  const Op op = op_of(c.scheme);
  const DType x = op == Op::kScaledMm ? DType::kInt8 : c.activation;  // quantized before
  const DType w = storage_dtype(c.scheme.weight, c.scheme.weight.num_bits <= 4);
  return {op, x, w, c.scheme.weight, shape.M, shape.N, shape.K, {}, layout};
}

}  // namespace octavo::bench
