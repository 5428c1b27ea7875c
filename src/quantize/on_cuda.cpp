// quantize.h's and fused.h's functions that take a Stream: they check, and launch.
#include "core/cuda.h"
#include "core/error.h"
#include "core/macros.h"
#include "octavo/fused.h"
#include "octavo/quantize.h"
#include "quantize/check.h"
#include "quantize/cuda/activations.h"
#include "quantize/cuda/fused.h"
#include "quantize/cuda/weights.h"

namespace octavo {
Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, group_size, q, scale));
  if (scale.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_quantize_per_token(x, group_size, q, scale, stream); });
}

Status quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_static(x, scale, q));
  if (q.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_quantize_static(x, scale, q, stream); });
}

Status rms_norm_quantize(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, kPerChannel, q, scale));
  if (scale.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_rms_norm_quantize(x, {}, weight, eps, {}, q, scale, stream); });
}

Status add_rms_norm_quantize(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                             const MutableMatrixView& sum, const MutableMatrixView& q, const MutableMatrixView& scale,
                             Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, kPerChannel, q, scale));
  OCTAVO_RETURN_IF_ERROR(check_add(x, residual, sum));
  if (scale.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_rms_norm_quantize(x, residual, weight, eps, sum, q, scale, stream); });
}

Status silu_mul_quantize(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& q,
                         const MutableMatrixView& scale, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(gate, "gate"));
  OCTAVO_RETURN_IF_ERROR(check_silu_mul(gate, up));
  OCTAVO_RETURN_IF_ERROR(check_per_token(gate, kPerChannel, q, scale));
  if (scale.empty()) return {};
  return cuda::on_device(gate.device, [&] { cuda_silu_mul_quantize(gate, up, q, scale, stream); });
}

Status rms_norm(const MatrixView& x, const MatrixView& weight, float eps, const MutableMatrixView& y, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_rounded(x, y));
  if (y.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_rms_norm(x, {}, weight, eps, {}, y, stream); });
}

Status add_rms_norm(const MatrixView& x, const MatrixView& residual, const MatrixView& weight, float eps,
                    const MutableMatrixView& sum, const MutableMatrixView& y, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_rms_norm(x, weight, eps));
  OCTAVO_RETURN_IF_ERROR(check_add(x, residual, sum));
  OCTAVO_RETURN_IF_ERROR(check_rounded(x, y));
  if (y.empty()) return {};
  return cuda::on_device(x.device, [&] { cuda_rms_norm(x, residual, weight, eps, sum, y, stream); });
}

Status silu_mul(const MatrixView& gate, const MatrixView& up, const MutableMatrixView& y, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(gate, "gate"));
  OCTAVO_RETURN_IF_ERROR(check_silu_mul(gate, up));
  OCTAVO_RETURN_IF_ERROR(check_rounded(gate, y));
  if (y.empty()) return {};
  return cuda::on_device(gate.device, [&] { cuda_silu_mul(gate, up, y, stream); });
}

Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(w, "weight"));
  OCTAVO_RETURN_IF_ERROR(check_quantize(w, options, out));
  if (options.clip != Clip::kAbsmax || options.tensor_range) return unsupported("on CUDA, scales cover the whole range");
  if (bits_of(out.q.dtype) != 8) return unsupported("on CUDA, q is stored one a byte, not as {}", to_string(out.q.dtype));
  if (!out.format.symmetric && out.format.group_size == kPerTensor) {
    return unsupported("on CUDA, asymmetric weights have a scale a channel or group");
  }
  if (out.scale.empty()) return {};
  return cuda::on_device(w.device, [&] { cuda_quantize(w, options.scale_dtype, out, stream); });
}

Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Stream stream) {
  OCTAVO_RETURN_IF_ERROR(check_on_cuda(w.q, "q"));
  OCTAVO_RETURN_IF_ERROR(check_dequantize(w, out));
  if (out.empty()) return {};
  return cuda::on_device(out.device, [&] { cuda_dequantize(w, out, stream); });
}

}  // namespace octavo
