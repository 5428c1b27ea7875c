// Operators on packed weights: a tensor of bytes, which are a header and the weight in Layout::kBlock64. The header tells
// what the weight is, and each product has an operator of its own, because every argument of an operator costs a call from
// Python some 0.2 us.
#include <cstring>
#include <tuple>
#include <type_traits>

#include "torch/tensors.h"

namespace octavo::torch_ops {
namespace {

constexpr Layout kLayout = Layout::kBlock64;

struct Header {
  char magic[8] = {'o', 'c', 't', 'a', 'v', 'o', '6', '4'};
  int64_t N = 0;
  int64_t K = 0;
  int64_t num_bits = 0;
  int64_t symmetric = 0;
  int64_t group_size = 0;

  WeightFormat format() const { return {static_cast<int>(num_bits), symmetric != 0, group_size}; }
};
constexpr std::size_t kHeaderBytes = kPackedAlignment;
static_assert(sizeof(Header) <= kHeaderBytes && std::has_unique_object_representations_v<Header>);

// Bytes of a tensor that holds a packed weight.
int64_t size_of(const WeightFormat& format, int64_t N, int64_t K) {
  const Result<int64_t> bytes = packed_bytes(kLayout, format, N, K);
  check(bytes.status());
  return static_cast<int64_t>(kHeaderBytes) + *bytes;
}

// The weight that a tensor holds, which pack_weight made.
PackedWeight packed_of(const Tensor& weight) {
  const MatrixView bytes = matrix_of(weight, "the packed weight");
  const auto size = static_cast<std::size_t>(bytes.cols);
  Header header;
  const bool long_enough = bytes.rows == 1 && bytes.dtype == DType::kUInt8 && size >= kHeaderBytes;
  if (long_enough) std::memcpy(&header, bytes.data, sizeof(Header));
  require(long_enough && std::memcmp(header.magic, Header().magic, sizeof(header.magic)) == 0,
          "the packed weight is none that octavo::pack_weight made");
  require(static_cast<int64_t>(size) == size_of(header.format(), header.N, header.K), "the packed weight is cut short");
  return {kLayout, header.format(), header.N, header.K, {bytes.row<std::byte>(0) + kHeaderBytes, size - kHeaderBytes}};
}

int64_t packed_size_op(int64_t num_bits, bool symmetric, int64_t group_size, int64_t N, int64_t K) {
  return size_of({static_cast<int>(num_bits), symmetric, group_size}, N, K);
}

Tensor pack_weight_op(const Tensor& q, const Tensor& scale, const std::optional<Tensor>& zero_point, int64_t num_bits,
                      int64_t group_size, bool packed, int64_t K) {
  const Weight weight(q, scale, zero_point, num_bits, group_size, packed, K);
  const WeightFormat& format = weight.view().format;
  const int64_t N = weight.rows();
  const int64_t size = size_of(format, N, K);
  Tensor out = new_tensor({size}, ScalarType::Byte);
  auto* data = static_cast<std::byte*>(out.mutable_data_ptr());
  const std::span<std::byte> body(data + kHeaderBytes, static_cast<std::size_t>(size) - kHeaderBytes);
  check(pack(weight.view(), {kLayout, format, N, K, body}, torch_threads()));
  Header header;
  header.N = N;
  header.K = K;
  header.num_bits = num_bits;
  header.symmetric = format.symmetric ? 1 : 0;
  header.group_size = group_size;
  std::memset(data, 0, kHeaderBytes);
  std::memcpy(data, &header, sizeof(header));
  return out;
}

// A row-major weight in tensors of its own, with the shapes that octavo::quantize gives.
struct RowMajor {
  RowMajor(const PackedWeight& w, bool packed)
      : q(new_tensor({w.N, row_bytes(storage_dtype(w.format, packed), w.K)},
                     packed || !w.format.symmetric ? ScalarType::Byte : ScalarType::Char)),
        scale(new_tensor(parameter_shape(w), ScalarType::Float)),
        zero_point(new_tensor(w.format.symmetric ? std::vector<int64_t>{0} : parameter_shape(w), ScalarType::Byte)),
        view{w.format,
             {q.mutable_data_ptr(), storage_dtype(w.format, packed), w.N, w.K},
             mutable_matrix_of(scale, "scale"),
             {}} {
    if (!w.format.symmetric) view.zero_point = mutable_matrix_of(zero_point, "zero_point");
    check(unpack(w, view, torch_threads()));
  }

  static std::vector<int64_t> parameter_shape(const PackedWeight& w) {
    return {w.format.group_size == kPerTensor ? 1 : w.N, w.format.groups(w.K)};
  }

  Tensor q, scale, zero_point;
  MutableQuantizedWeight view;
};

std::tuple<Tensor, Tensor, Tensor> unpack_weight_op(const Tensor& weight, int64_t N, int64_t K, bool symmetric,
                                                    int64_t group_size, bool packed) {
  const Tensor bytes = as_contiguous(weight);
  const PackedWeight w = packed_of(bytes);
  require(w.N == N && w.K == K && w.format.symmetric == symmetric && w.format.group_size == group_size,
          "the packed weight is [", w.N, ", ", w.K, "], ", w.format.symmetric ? "symmetric" : "asymmetric", ", group_size ",
          w.format.group_size, ", not what it is unpacked as");
  const RowMajor out(w, packed);
  return {out.q, out.scale, out.zero_point};
}

Tensor dequantize_packed_op(const Tensor& weight, int64_t N, int64_t K, ScalarType dtype) {
  const Tensor bytes = as_contiguous(weight);
  const PackedWeight w = packed_of(bytes);
  require(w.N == N && w.K == K, "the packed weight is [", w.N, ", ", w.K, "], not [", N, ", ", K, "]");
  const RowMajor row_major(w, w.format.num_bits <= 4);
  Tensor out = new_tensor({N, K}, dtype);
  check(dequantize(as_const(row_major.view), mutable_matrix_of(out, "output"), torch_threads()));
  return out;
}

// What the products share: product(x, w, bias, y) is called with a packed w, or a row-major one.
template <class Product>
Tensor product_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N,
                  const Product& product) {
  const Tensor in = as_contiguous(x);
  const Tensor bytes = as_contiguous(weight);
  const PackedWeight w = packed_of(bytes);
  require(w.N == N, "the packed weight is [", w.N, ", ", w.K, "], not [", N, ", ", w.K, "]");
  const Bias b(bias);
  Tensor y = new_tensor(with_last(in, N), in.scalar_type());
  const MatrixView rows = matrix_of(in, "x");
  const MutableMatrixView out = mutable_matrix_of(y, "y");
  Status status = product(rows, w, b.view(), out);
  if (status.code() == StatusCode::kUnsupported) {
    // No kernel reads it for x of this type, which is another than it was packed for.
    const RowMajor row_major(w, w.format.num_bits <= 4);
    status = product(rows, as_const(row_major.view), b.view(), out);
  }
  check(status);
  return y;
}

Tensor linear_packed_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N) {
  return product_op(x, weight, bias, N, [](const MatrixView& rows, const auto& w, const MatrixView& b, const auto& y) {
    return linear(rows, w, b, y, torch_threads());
  });
}

Tensor linear_w8a8_packed_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N) {
  return product_op(x, weight, bias, N, [](const MatrixView& rows, const auto& w, const MatrixView& b, const auto& y) {
    return linear_w8a8(rows, w, b, y, torch_threads());
  });
}

Tensor linear_w8a8_static_packed_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N,
                                    const Tensor& x_scale) {
  const Tensor in_scale = as_contiguous(x_scale);
  return product_op(x, weight, bias, N, [&](const MatrixView& rows, const auto& w, const MatrixView& b, const auto& y) {
    return linear_w8a8_static(rows, column_of(in_scale, "x_scale"), w, b, y, torch_threads());
  });
}

Tensor linear_w4a8_packed_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N) {
  return product_op(x, weight, bias, N, [](const MatrixView& rows, const auto& w, const MatrixView& b, const auto& y) {
    return linear_w4a8(rows, w, b, y, torch_threads());
  });
}

Tensor linear_llm_int8_packed_op(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t N,
                                 double threshold, int64_t rule) {
  const OutlierRule outliers = rule_of(rule);
  return product_op(x, weight, bias, N, [&](const MatrixView& rows, const auto& w, const MatrixView& b, const auto& y) {
    return linear_llm_int8(rows, w, static_cast<float>(threshold), outliers, b, y, torch_threads());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(octavo, CPU, m) {
  m.impl("pack_weight", TORCH_BOX(&pack_weight_op));
  m.impl("unpack_weight", TORCH_BOX(&unpack_weight_op));
  m.impl("dequantize_packed", TORCH_BOX(&dequantize_packed_op));
  m.impl("linear_packed", TORCH_BOX(&linear_packed_op));
  m.impl("linear_w8a8_packed", TORCH_BOX(&linear_w8a8_packed_op));
  m.impl("linear_w8a8_static_packed", TORCH_BOX(&linear_w8a8_static_packed_op));
  m.impl("linear_w4a8_packed", TORCH_BOX(&linear_w4a8_packed_op));
  m.impl("linear_llm_int8_packed", TORCH_BOX(&linear_llm_int8_packed_op));
}

STABLE_TORCH_LIBRARY_IMPL(octavo, CompositeExplicitAutograd, m) { m.impl("packed_size", TORCH_BOX(&packed_size_op)); }

}  // namespace octavo::torch_ops
