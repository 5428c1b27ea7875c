// Every operator of the octavo namespace. Group sizes: kPerTensor (0), kPerChannel (-1), or N; where `packed`, q holds two
// integers a byte. `op` and `layout` are octavo::Op and octavo::Layout, `rule` is octavo::OutlierRule. Fake kernels and
// gradients are in python/octavo/ops.py.
#include "torch/tensors.h"

STABLE_TORCH_LIBRARY(octavo, m) {
  m.def(
      "quantize(Tensor weight, int num_bits, bool symmetric, int group_size, int clip, float percentile, "
      "ScalarType scale_dtype) -> (Tensor q, Tensor scale, Tensor zero_point)");
  m.def(
      "dequantize(Tensor q, Tensor scale, Tensor? zero_point, int num_bits, int group_size, bool packed, int K, "
      "ScalarType dtype) -> Tensor");
  m.def("pack(Tensor q) -> Tensor");
  m.def("unpack(Tensor packed, int K, bool symmetric) -> Tensor");
  m.def("quantize_per_token(Tensor x, int group_size) -> (Tensor q, Tensor scale)");
  m.def("quantize_static(Tensor x, Tensor scale) -> Tensor");
  m.def("rms_norm_quantize(Tensor x, Tensor weight, float eps) -> (Tensor q, Tensor scale)");
  m.def(
      "add_rms_norm_quantize(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor q, Tensor scale, Tensor sum)");
  m.def("silu_mul_quantize(Tensor gate, Tensor? up) -> (Tensor q, Tensor scale)");
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor");
  m.def("add_rms_norm(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor y, Tensor sum)");
  m.def("silu_mul(Tensor gate, Tensor? up) -> Tensor");
  m.def(
      "linear(Tensor x, Tensor q, Tensor scale, Tensor? zero_point, Tensor? bias, int num_bits, int group_size, "
      "bool packed) -> Tensor");
  m.def(
      "linear_joined(Tensor x, Tensor[] q, Tensor[] scale, Tensor[] zero_point, Tensor[] bias, int num_bits, "
      "int group_size, bool packed) -> Tensor");
  m.def(
      "linear_w4a8(Tensor x, Tensor q, Tensor scale, Tensor? zero_point, Tensor? bias, int num_bits, int group_size, "
      "bool packed) -> Tensor");
  m.def("linear_w8a8(Tensor x, Tensor q, Tensor scale, Tensor? bias) -> Tensor");
  m.def("linear_w8a8_joined(Tensor x, Tensor[] q, Tensor[] scale, Tensor[] bias) -> Tensor");
  m.def("linear_w8a8_static(Tensor x, Tensor q, Tensor scale, Tensor? bias, Tensor x_scale) -> Tensor");
  m.def("linear_llm_int8(Tensor x, Tensor q, Tensor scale, Tensor? bias, float threshold, int rule) -> Tensor");
  m.def(
      "scaled_mm(Tensor x, Tensor w, Tensor x_scale, Tensor w_scale, Tensor? bias, ScalarType out_dtype, "
      "bool constant_w=False) -> Tensor");
  m.def("matmul(Tensor x, Tensor y, float alpha) -> Tensor");
  m.def(
      "pack_weight(Tensor q, Tensor scale, Tensor? zero_point, int num_bits, int group_size, bool packed, int K) -> Tensor");
  m.def("packed_size(int num_bits, bool symmetric, int group_size, int N, int K) -> int");
  m.def("dequantize_packed(Tensor weight, int N, int K, ScalarType dtype) -> Tensor");
  m.def(
      "unpack_weight(Tensor weight, int N, int K, bool symmetric, int group_size, bool packed) -> (Tensor q, Tensor scale, "
      "Tensor zero_point)");
  m.def("linear_packed(Tensor x, Tensor weight, Tensor? bias, int N) -> Tensor");
  m.def("linear_w8a8_packed(Tensor x, Tensor weight, Tensor? bias, int N) -> Tensor");
  m.def("linear_w8a8_static_packed(Tensor x, Tensor weight, Tensor? bias, int N, Tensor x_scale) -> Tensor");
  m.def("linear_w4a8_packed(Tensor x, Tensor weight, Tensor? bias, int N) -> Tensor");
  m.def("linear_llm_int8_packed(Tensor x, Tensor weight, Tensor? bias, int N, float threshold, int rule) -> Tensor");
  m.def(
      "select_kernel(int op, ScalarType activation, int num_bits, bool symmetric, int group_size, bool packed, int layout, "
      "int M, int N, int K, bool cuda) -> str");
  m.def("best_layout(int op, ScalarType activation, int num_bits, bool symmetric, int group_size, int N, int K) -> int");
  m.def("has_cuda() -> bool");
  m.def("parse_scheme(str scheme) -> int[]");
}
