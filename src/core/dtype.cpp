#include <array>
#include <utility>

#include "core/error.h"
#include "octavo/tensor.h"

namespace octavo {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 9> kNames = {{
    {DType::kFloat64, "float64"},
    {DType::kFloat32, "float32"},
    {DType::kFloat16, "float16"},
    {DType::kBFloat16, "bfloat16"},
    {DType::kInt32, "int32"},
    {DType::kInt8, "int8"},
    {DType::kUInt8, "uint8"},
    {DType::kInt4, "int4"},
    {DType::kUInt4, "uint4"},
}};

}  // namespace

std::string_view to_string(DType dtype) {
  for (const auto& [value, name] : kNames) {
    if (value == dtype) return name;
  }
  return "unknown";
}

Result<DType> parse_dtype(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  return invalid("unknown dtype '{}'; known are float64, float32, float16, bfloat16, int32, int8, uint8, int4, uint4", name);
}

}  // namespace octavo
