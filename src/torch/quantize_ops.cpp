#include "torch/quantize_ops.h"

namespace octavo::torch_ops {

QuantizedTensors::QuantizedTensors(int64_t N, int64_t K, const WeightFormat& format, const Device& device)
    : q(new_tensor({N, K}, format.symmetric ? ScalarType::Char : ScalarType::Byte, device)),
      scale(new_tensor({format.group_size == kPerTensor ? 1 : N, format.groups(K)}, ScalarType::Float, device)),
      zero_point(new_tensor(format.symmetric ? std::vector<int64_t>{0} : std::vector<int64_t>{scale.size(0), scale.size(1)},
                            ScalarType::Byte, device)),
      view{format, mutable_matrix_of(q, "q"), mutable_matrix_of(scale, "scale"), {}} {
  if (!format.symmetric) view.zero_point = mutable_matrix_of(zero_point, "zero_point");
}

void check_quantize_arguments(const Tensor& weight, int64_t group_size, int64_t clip) {
  require(weight.dim() == 2, "the weight has ", weight.dim(), " dimensions; it must be [N, K]");
  require(clip >= 0 && clip <= 2, "clip is 0 (absmax), 1 (mse) or 2 (percentile), not ", clip);
  require(group_size >= kPerChannel, group_size, " is not a group size");
}

std::tuple<Tensor, Tensor, Tensor> quantize_on_cpu(const Tensor& weight, int64_t num_bits, bool symmetric,
                                                   int64_t group_size, int64_t clip, double percentile,
                                                   ScalarType scale_dtype) {
  check_quantize_arguments(weight, group_size, clip);
  const Tensor w = as_contiguous(weight);
  QuantizedTensors out(w.size(0), w.size(1), {static_cast<int>(num_bits), symmetric, group_size});
  QuantizeOptions options;
  options.clip = static_cast<Clip>(clip);
  options.percentile = percentile;
  options.scale_dtype = dtype_of(scale_dtype, "scale");
  check(quantize(matrix_of(w, "weight"), options, out.view, torch_threads()));
  return {out.q, out.scale, out.zero_point};
}

namespace {

Tensor dequantize_op(const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point, int64_t num_bits,
                     int64_t group_size, bool packed, int64_t K, ScalarType dtype) {
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, K);
  Tensor out = new_tensor({weight.rows(), K}, dtype);
  check(dequantize(weight.view(), mutable_matrix_of(out, "output"), torch_threads()));
  return out;
}

// The 4-bit view of a tensor of bytes.
template <class View>
View as_nibbles(View bytes, DType dtype, int64_t K) {
  return {bytes.data, dtype, bytes.rows, K};
}

Tensor pack_op(const Tensor& q) {
  require(q.dim() == 2, "octavo: q has ", q.dim(), " dimensions; it must be [N, K]");
  const Tensor integers = as_contiguous(q);
  const DType dtype = integers.scalar_type() == ScalarType::Char ? DType::kInt4 : DType::kUInt4;
  Tensor packed = new_tensor({q.size(0), row_bytes(dtype, q.size(1))}, ScalarType::Byte);
  check(pack_int4(matrix_of(integers, "q"), as_nibbles(mutable_matrix_of(packed, "packed"), dtype, q.size(1)),
                  torch_threads()));
  return packed;
}

Tensor unpack_op(const Tensor& packed, int64_t K, bool symmetric) {
  const Tensor bytes = as_contiguous(packed);
  require(bytes.dim() == 2 && K >= 0 && bytes.size(1) == (K + 1) / 2 && bytes.scalar_type() == ScalarType::Byte,
          "octavo: packed must be uint8 [N, ", (K + 1) / 2, "] for K = ", K);
  Tensor q = new_tensor({bytes.size(0), K}, symmetric ? ScalarType::Char : ScalarType::Byte);
  check(unpack_int4(as_nibbles(matrix_of(bytes, "packed"), symmetric ? DType::kInt4 : DType::kUInt4, K),
                    mutable_matrix_of(q, "q"), torch_threads()));
  return q;
}

std::tuple<Tensor, Tensor> quantize_per_token_op(const Tensor& x, int64_t group_size) {
  require(group_size == kPerChannel || group_size > 0, group_size, " is not a group size");
  const Tensor in = as_contiguous(x);
  const MatrixView view = matrix_of(in, "x");
  Tensor q = new_tensor(with_last(in, view.cols), ScalarType::Char);
  Tensor scale = new_tensor(with_last(in, WeightFormat{8, true, group_size}.groups(view.cols)), ScalarType::Float);
  check(quantize_per_token(view, group_size, mutable_matrix_of(q, "q"), mutable_matrix_of(scale, "scale"), torch_threads()));
  return {q, scale};
}

std::vector<int64_t> parse_scheme_op(std::string text) {
  const Result<Scheme> scheme = parse_scheme(text);
  check(scheme.status());
  const WeightFormat& weight = scheme->weight;
  return {weight.num_bits, weight.symmetric ? 1 : 0, weight.group_size, static_cast<int64_t>(scheme->activation)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) {
  m.impl("quantize", TORCH_BOX(&quantize_on_cpu));
  m.impl("dequantize", TORCH_BOX(&dequantize_op));
  m.impl("pack", TORCH_BOX(&pack_op));
  m.impl("unpack", TORCH_BOX(&unpack_op));
  m.impl("quantize_per_token", TORCH_BOX(&quantize_per_token_op));
}

STABLE_TORCH_LIBRARY_IMPL(octavo, CompositeExplicitAutograd, m) { m.impl("parse_scheme", TORCH_BOX(&parse_scheme_op)); }

}  // namespace octavo::torch_ops
