// Products with quantized matrices, y[M, N] = x[M, K] · W[N, K]ᵀ (+ bias[N]), and the table of kernels that compute them.
// docs/numerics.md says what each one means, to the bit where it can be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octavo/pack.h"
#include "octavo/parallel.h"
#include "octavo/quantize.h"
#include "octavo/scheme.h"
#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo {

// Sums of int8 products of this many terms fit in int32.
inline constexpr std::int64_t kMaxIntegerK = 131071;

enum class Op : std::uint8_t {
  kLinear,         // floating-point x, quantized W (W8A16, W4A16)
  kScaledMm,       // int8 x, int8 W, scales in the epilogue (W8A8)
  kLinearW4A8,     // floating-point x, quantized per token and group; W of up to 4 bits
  kLinearLlmInt8,  // floating-point x, int8 W, outliers in floating point
  kLinearW8A8,     // floating-point x, quantized per token in the same kernel; other x are quantized for kScaledMm first
};
std::string_view to_string(Op op);

// What a kernel is chosen by, together with the hardware.
struct Problem {
  Op op = Op::kLinear;
  DType activation = DType::kFloat32;
  DType weight = DType::kInt8;
  WeightFormat format;
  std::int64_t M = 0;
  std::int64_t N = 0;
  std::int64_t K = 0;
  Device device;
  Layout layout = Layout::kRowMajor;  // of the weight
  int alignment = 16;  // bytes, a power of two up to 16: that of every row of x and of a row-major weight, on CUDA
};

// One row of the kernel table, as a user sees it.
struct KernelInfo {
  std::string_view name;  // <device>_<activation>_<weight>_<how, or isa>
  Op op;
  DeviceType device;
  Layout layout;             // of the weights it reads
  std::string_view summary;  // one line: what it takes and how it works
  Status usable;             // whether this machine can run it, and if not, why
};

// Every kernel of this build, in the order in which they are tried.
std::vector<KernelInfo> list_kernels();

// Why each row before the chosen one refused.
struct Refusal {
  std::string_view kernel;
  std::string reason;
};
struct Selection {
  std::string_view kernel;
  std::vector<Refusal> refusals;
};

// The kernel that a problem runs on: the first row that supports it and does not leave it to a faster one below, or the one
// that OCTAVO_KERNEL names. A function of the
// problem, the hardware and that variable alone. Fails when no row fits, with every row's reason.
Result<Selection> select_kernel(const Problem& problem);

// The layout that a weight should be packed into, once, for problems like this one at any M: that of the kernel which runs
// them then. kRowMajor where no kernel of this machine reads a packed one.
Layout best_layout(Problem problem);

// Every product below takes its weight row-major or packed. A row-major weight that many rows of x will read is packed into
// a buffer of the call's own first.
//
// The functions that take a Parallel run on the CPU and take CPU memory. Those that take a Stream run on the CUDA device
// that all their operands are on: they put their work on that stream and return, allocate nothing and wait for nothing, so
// they can be captured into a CUDA graph. They give the same bits. What they read as weights (w, w_scale and bias) must be
// complete, and stay unchanged, while products run: kernels load it before their predecessor on the stream has ended. (Not
// so of scaled_mm without constant_w, and of matmul.) Work of other libraries on the stream is waited for. Operands in
// device memory are views with a device, as {data, DType::kFloat16, M, K, K * 2, {DeviceType::kCuda, 0}}.

// x [M, K] float32, float16 or bfloat16; w [N, K] in any format; bias [1, N] in any of x's types, or empty; y [M, N]
// float32, float16 or bfloat16.
Status linear(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Parallel& parallel = serial());
Status linear(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Parallel& parallel = serial());

// The same on CUDA.
Status linear(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
              Stream stream);

// Whether that takes w's scales, with x of this type, and if not, what to do: float32 always; of 16 bits those of
// x's type, of groups of 32, 64 or 128, an even number along K, in rows that begin at multiples of 4 bytes. Products are the
// same bits as with these scales in float32.
Status takes_scales(const QuantizedWeight& w, DType x);

// x [M, K] int8 with x_scale [M, 1] or [1, 1] float32; w [N, K] int8 with w_scale [N, 1] or [1, 1]; bias as above; y [M, N]
// float32, float16, bfloat16; or int32, the raw sums, which takes neither scales nor bias. K <= kMaxIntegerK.
Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const MatrixView& w, const MatrixView& w_scale,
                 const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel = serial());
Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const PackedWeight& w, const MatrixView& bias,
                 const MutableMatrixView& y, Parallel& parallel = serial());

// The same on CUDA, where the scales must be contiguous. constant_w: no kernel that the stream has not ended yet writes w,
// as is so of a layer's weight; it is then read while the kernel in front still runs. Else w may be anything.
Status scaled_mm(const MatrixView& x, const MatrixView& x_scale, const MatrixView& w, const MatrixView& w_scale,
                 const MatrixView& bias, const MutableMatrixView& y, Stream stream, bool constant_w = false);

// W8A8 with dynamic scales: x [M, K] float32, float16 or bfloat16 is quantized per token, then scaled_mm.
Status linear_w8a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel = serial());
Status linear_w8a8(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel = serial());

// The same on CUDA: w row-major, and a workspace on x's device of w8a8_workspace_bytes() aligned to 16, for the quantized x
// and its scales. It may be used again as soon as the call returns, by work on the same stream. constant_w as in scaled_mm.
Status linear_w8a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   std::span<std::byte> workspace, Stream stream, bool constant_w = true);
// For x [M, K].
std::int64_t w8a8_workspace_bytes(std::int64_t M, std::int64_t K);

// W8A8 with one static scale of x, x_scale [1, 1] float32, finite and greater than 0: quantize_static, then scaled_mm. On
// CUDA, nobody looks at the scale before it is used, and the workspace is as above.
Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const QuantizedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, Parallel& parallel = serial());
Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const PackedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, Parallel& parallel = serial());
Status linear_w8a8_static(const MatrixView& x, const MatrixView& x_scale, const QuantizedWeight& w, const MatrixView& bias,
                          const MutableMatrixView& y, std::span<std::byte> workspace, Stream stream, bool constant_w = true);

// y [M, N] bfloat16 = alpha · x [M, K] int8 · w [N, K]ᵀ int8.
Status matmul(const MatrixView& x, const MatrixView& w, float alpha, const MutableMatrixView& y,
              Parallel& parallel = serial());

// The same on CUDA.
Status matmul(const MatrixView& x, const MatrixView& w, float alpha, const MutableMatrixView& y, Stream stream);

// W4A8: x is quantized per token and per group of w's format, integer sums per group, scaled and added in order of groups.
Status linear_w4a8(const MatrixView& x, const QuantizedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel = serial());
Status linear_w4a8(const MatrixView& x, const PackedWeight& w, const MatrixView& bias, const MutableMatrixView& y,
                   Parallel& parallel = serial());

// Which values of x stay out of the integer product.
enum class OutlierRule : std::uint8_t {
  kToken,  // decided for each row alone
  kBatch,  // a column with an outlier in any row is one for all rows, as published
};

// LLM.int8(): |x| >= threshold are outliers, multiplied in float32 with the dequantized weights; threshold 0 has none.
// w is int8, symmetric, per channel or tensor.
Status linear_llm_int8(const MatrixView& x, const QuantizedWeight& w, float threshold, OutlierRule rule,
                       const MatrixView& bias, const MutableMatrixView& y, Parallel& parallel = serial());
Status linear_llm_int8(const MatrixView& x, const PackedWeight& w, float threshold, OutlierRule rule, const MatrixView& bias,
                       const MutableMatrixView& y, Parallel& parallel = serial());

}  // namespace octavo
