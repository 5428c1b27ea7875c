// Quantizes a matrix to INT8, multiplies with it, and checks the result against the unquantized product.
#include <octavo/octavo.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  constexpr std::int64_t M = 2, N = 3, K = 64;
  std::vector<float> w(N * K), x(M * K), y(M * N), scale(N);
  for (std::int64_t i = 0; i < N * K; ++i) w[i] = std::sin(static_cast<float>(i));
  for (std::int64_t i = 0; i < M * K; ++i) x[i] = std::cos(static_cast<float>(i));
  std::vector<std::int8_t> q(N * K);

  const octavo::Scheme scheme = octavo::parse_scheme("w8a16").value();
  octavo::MutableQuantizedWeight quantized;
  quantized.format = scheme.weight;
  quantized.q = {q.data(), octavo::DType::kInt8, N, K};
  quantized.scale = {scale.data(), octavo::DType::kFloat32, N, 1};

  octavo::Status status = octavo::quantize({w.data(), octavo::DType::kFloat32, N, K}, {}, quantized);
  if (status.ok()) {
    status = octavo::linear({x.data(), octavo::DType::kFloat32, M, K}, octavo::as_const(quantized), {},
                            {y.data(), octavo::DType::kFloat32, M, N});
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 1;
  }
  for (std::int64_t m = 0; m < M; ++m) {
    for (std::int64_t n = 0; n < N; ++n) {
      float exact = 0;
      for (std::int64_t k = 0; k < K; ++k) exact += x[m * K + k] * w[n * K + k];
      if (std::fabs(exact - y[m * N + n]) > 0.1f) return 1;
    }
  }
  std::printf("octavo " OCTAVO_VERSION ": y[0][0] = %g\n", y[0]);
  return 0;
}
