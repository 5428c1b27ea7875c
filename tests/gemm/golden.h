// The golden cases: inputs and what the reference makes of them, by name. tests/golden holds them as safetensors, and every
// implementation (C++, torch, Python) is compared with the files. Names:
//   quantize/<dtype>/<scheme>/<clip>/<scale dtype>/{weight, q, scale, zero_point, dequantized}
//   quantize_per_token/<dtype>/g<group_size>/{x, q, scale}
//   scaled_mm/<case>/{x, x_scale, w, w_scale, bias, y}
//   linear/<dtype>/<scheme>/{x, q, scale, zero_point, bias, y}
//   linear_w4a8/<dtype>/<scheme>/{the same}
//   linear_llm_int8/<dtype>/<rule>/{the same}; threshold 6
#pragma once

#include <map>
#include <string>

#include "matrix.h"

namespace octavo::test {

using Golden = std::map<std::string, Matrix>;

Golden golden_quantize();
Golden golden_products();

}  // namespace octavo::test
