#include "gemm/golden.h"

#include <cmath>
#include <cstdlib>

#include "gemm/reference.h"
#include "octavo/scheme.h"
#include "quantize/reference.h"

namespace octavo::test {
namespace {

// A weight with what is hard about weights: ties, a row of zeros, a large value among small ones, subnormals.
Matrix hard_weight(DType dtype, std::int64_t N, std::int64_t K) {
  Matrix w = random_float(dtype, N, K, 1);
  for (std::int64_t k = 0; k < K; ++k) {
    w.set(1, k, k % 3 == 0 ? -0.0f : 0.0f);
    w.set(2, k, static_cast<float>(k % 255 - 127) / 2);
    w.set(3, k, k == 5 ? 900.0f : 0.001f * static_cast<float>(k));
    w.set(4, k, std::ldexp(static_cast<float>(k % 7) - 3.0f, dtype == DType::kFloat16 ? -24 : -130));
    w.set(5, k, 1.0f + static_cast<float>(k % 5));  // positive: the zero point is at its end
  }
  return w;
}

// Activations with a NaN, an Inf, zeros and outliers, each in a row of its own.
Matrix hard_activations(DType dtype, std::int64_t M, std::int64_t K) {
  Matrix x = random_float(dtype, M, K, 2);
  x.set(1, 3, NAN);
  x.set(2, K - 1, INFINITY);
  for (std::int64_t k = 0; k < K; ++k) x.set(3, k, 0);
  x.set(4, 7, -11.5f);
  x.set(4, 40, 6.0f);
  return x;
}

void must(const Status& status) {
  if (!status.ok()) std::abort();
}

Quantized quantized(const Matrix& w, const WeightFormat& format, const QuantizeOptions& options) {
  Quantized q(format, w.view().rows, w.view().cols);
  must(reference::quantize(w.view(), options, q.mut()));
  return q;
}

void put(Golden& golden, const std::string& name, Quantized q) {
  golden[name + "/q"] = std::move(q.q);
  golden[name + "/scale"] = std::move(q.scale);
  if (!q.format.symmetric) golden[name + "/zero_point"] = std::move(q.zero_point);
}

Scheme scheme_of(const char* text) { return *parse_scheme(text); }

constexpr DType kFloats[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

std::string name_of(const char* op, DType dtype, const char* rest) {
  return std::string(op) + "/" + std::string(to_string(dtype)) + "/" + rest;
}

void add_scaled_mm(Golden& golden, const std::string& name, Matrix x, Matrix w, bool per_token, DType y_dtype) {
  const std::int64_t M = x.view().rows, N = w.view().rows;
  Matrix x_scale = random_float(DType::kFloat32, per_token ? M : 1, 1, 3, Fill::kPositive);
  Matrix w_scale = random_float(DType::kFloat32, per_token ? N : 1, 1, 4, Fill::kPositive);
  Matrix bias = random_float(y_dtype, 1, N, 5);
  Matrix y(y_dtype, M, N);
  reference::scaled_mm({x.view(), x_scale.view(), {{}, w.view(), w_scale.view(), {}}, bias.view(), y.mut()}, serial());
  golden[name + "/x"] = std::move(x);
  golden[name + "/w"] = std::move(w);
  golden[name + "/x_scale"] = std::move(x_scale);
  golden[name + "/w_scale"] = std::move(w_scale);
  golden[name + "/bias"] = std::move(bias);
  golden[name + "/y"] = std::move(y);
}

Matrix constant_int8(std::int64_t rows, std::int64_t cols, std::int8_t value) {
  Matrix m(DType::kInt8, rows, cols);
  for (std::int64_t r = 0; r < rows; ++r) std::memset(m.mut().row<char>(r), value, static_cast<std::size_t>(cols));
  return m;
}

using Product = void (*)(const Arguments&, Parallel&);

void add_product(Golden& golden, const std::string& name, Product product, Matrix x, const WeightFormat& format,
                 OutlierRule rule = OutlierRule::kToken) {
  const std::int64_t N = 9, K = x.view().cols;
  Quantized w = quantized(random_float(DType::kFloat32, N, K, 6), format, {});
  Matrix bias = random_float(x.view().dtype, 1, N, 7);
  Matrix y(x.view().dtype, x.view().rows, N);
  product({x.view(), {}, w.view(), bias.view(), y.mut(), 6.0f, rule}, serial());
  golden[name + "/x"] = std::move(x);
  golden[name + "/bias"] = std::move(bias);
  golden[name + "/y"] = std::move(y);
  put(golden, name, std::move(w));
}

}  // namespace

Golden golden_quantize() {
  Golden golden;
  constexpr std::pair<Clip, const char*> kClips[] = {
      {Clip::kAbsmax, "absmax"}, {Clip::kMse, "mse"}, {Clip::kPercentile, "percentile"}};
  for (const DType dtype : kFloats) {
    for (const char* text :
         {"w8a16", "w8a16-tensor", "w8a16-g50-asym", "w4a16-g32", "w4a16-g32-asym", "w3a16-tensor-asym", "w2a16"}) {
      for (const auto& [clip, clip_name] : kClips) {
        const DType scale_dtype = dtype;
        QuantizeOptions options;
        options.clip = clip;
        options.scale_dtype = scale_dtype;
        Matrix w = hard_weight(dtype, 8, 75);
        const std::string name =
            name_of("quantize", dtype, text) + "/" + clip_name + "/" + std::string(to_string(scale_dtype));
        Quantized q = quantized(w, scheme_of(text).weight, options);
        Matrix restored(DType::kBFloat16, 8, 75);
        must(reference::dequantize(q.view(), restored.mut()));
        golden[name + "/weight"] = std::move(w);
        golden[name + "/dequantized"] = std::move(restored);
        put(golden, name, std::move(q));
      }
    }
    for (const std::int64_t group : {kPerChannel, std::int64_t{32}}) {
      const std::string name = name_of("quantize_per_token", dtype, "g") + std::to_string(group);
      Matrix x = hard_activations(dtype, 6, 75);
      Matrix q(DType::kInt8, 6, 75), scale(DType::kFloat32, 6, WeightFormat{8, true, group}.groups(75));
      must(reference::quantize_per_token(x.view(), group, q.mut(), scale.mut()));
      golden[name + "/x"] = std::move(x);
      golden[name + "/q"] = std::move(q);
      golden[name + "/scale"] = std::move(scale);
    }
  }
  return golden;
}

Golden golden_products() {
  Golden golden;
  add_scaled_mm(golden, "scaled_mm/float32", random_int8(7, 75, 1), random_int8(9, 75, 2), true, DType::kFloat32);
  add_scaled_mm(golden, "scaled_mm/bfloat16", random_int8(7, 75, 1), random_int8(9, 75, 2), true, DType::kBFloat16);
  add_scaled_mm(golden, "scaled_mm/float16-overflow", random_int8(7, 4096, 1), constant_int8(3, 4096, -128), false,
                DType::kFloat16);
  add_scaled_mm(golden, "scaled_mm/k-limit", constant_int8(1, kMaxIntegerK, -128), constant_int8(1, kMaxIntegerK, -128),
                false, DType::kFloat32);
  for (const DType dtype : kFloats) {
    for (const char* text : {"w8a16", "w8a16-tensor", "w4a16-g32-asym", "w4a16-g50"}) {
      add_product(golden, name_of("linear", dtype, text), reference::linear, random_float(dtype, 5, 75, 8),
                  scheme_of(text).weight);
    }
    for (const char* text : {"w4a8-g32", "w4a8-g25-asym"}) {
      add_product(golden, name_of("linear_w4a8", dtype, text), reference::linear_w4a8, hard_activations(dtype, 6, 75),
                  scheme_of(text).weight);
    }
    add_product(golden, name_of("linear_llm_int8", dtype, "token"), reference::linear_llm_int8,
                hard_activations(dtype, 6, 75), {}, OutlierRule::kToken);
    add_product(golden, name_of("linear_llm_int8", dtype, "batch"), reference::linear_llm_int8,
                hard_activations(dtype, 6, 75), {}, OutlierRule::kBatch);
  }
  return golden;
}

}  // namespace octavo::test
