#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "bench/cuda/operands.h"
#include "bench/forced_kernel.h"
#include "bench/on_cuda.h"
#include "core/error.h"
#include "core/macros.h"
#include "gemm/check.h"
#include "gemm/kernels.h"

namespace octavo::bench {
namespace {

constexpr Device kGpu = {DeviceType::kCuda, 0};

// Reference kernels are here to be read, not to be fast.
constexpr double kMaxReferenceOperations = 1e10;

std::string_view operands_of(const Case& c) {
  if (op_of(c.scheme) != Op::kLinear) return "int8";
  if (c.activation == DType::kBFloat16) return "bf16";
  return c.activation == DType::kFloat16 ? "fp16" : "fp32";
}

Status check(Op op, const Arguments& a) {
  switch (op) {
    case Op::kLinear:
      return check_linear(a);
    case Op::kScaledMm:
      return check_scaled_mm(a);
    case Op::kLinearW4A8:
      return check_linear_w4a8(a);
    case Op::kLinearLlmInt8:
      return check_linear_llm_int8(a);
    case Op::kLinearW8A8:
      return check_linear_w8a8(a);
  }
  return {};
}

class Bench {
 public:
  Bench(const Options& options, FunctionRef<void(const Row&)> done, Meter& meter)
      : options_(options), done_(done), meter_(meter) {}

  // All rows of the weights of one shape [N, K].
  void measure(std::int64_t N, std::int64_t K) {
    for (const Case& c : options_.cases) {
      for (const Shape& shape : options_.shapes) {
        if (shape.N == N && shape.K == K) measure(c, shape);
      }
    }
    weights_.clear();
  }

 private:
  // Every row of a case and shape.
  void measure(const Case& c, const Shape& shape) {
    const Op op = op_of(c.scheme);
    const std::string_view name = to_string(op);
    const auto attempt = [&]() -> Status {
      OCTAVO_ASSIGN_OR_RETURN(const CudaWeights* weights, get(c.scheme.weight, c.activation, shape.N, shape.K));
      OCTAVO_ASSIGN_OR_RETURN(const CudaOperands operands, CudaOperands::make(c, shape, meter_));
      const Arguments a = operands.product((*weights)[0]);
      OCTAVO_RETURN_IF_ERROR(check(op, a));
      OCTAVO_ASSIGN_OR_RETURN(const std::vector<const Kernel*> rows, rows_for(op, a));
      if (op == Op::kScaledMm && (options_.kernel.empty() || options_.kernel == "all")) measure_activations(c, shape);
      for (const Kernel* row : rows) {
        measure_product(c, name, shape, *row, *weights,
                        [&](int copy) { return run_kernel(*row, operands.product((*weights)[copy]), serial()); });
        if (op != Op::kScaledMm) continue;
        const ForcedKernel environment(options_.kernel.empty() ? "" : std::string(row->name));
        measure_product(c, "linear_w8a8", shape, *row, *weights,
                        [&](int copy) { return operands.linear_w8a8((*weights)[copy]); });
      }
      return {};
    };
    if (const Status status = attempt(); !status.ok()) {
      Row row = row_of(c, name, shape);
      row.skipped = status.message();
      done_(row);
    }
  }

  Row row_of(const Case& c, std::string_view op, const Shape& shape) const {
    Row row = {};
    row.what = c;
    row.op = op;
    row.shape = shape;
    row.device = DeviceType::kCuda;
    return row;
  }

  // The rows of the table to time: the one that is chosen, the one that is named, or all that take the product.
  Result<std::vector<const Kernel*>> rows_for(Op op, const Arguments& a) const {
    const Problem problem = problem_of(op, a);
    if (options_.kernel.empty()) {
      OCTAVO_ASSIGN_OR_RETURN(const Kernel* chosen, find_kernel(problem));
      return std::vector<const Kernel*>{chosen};
    }
    std::vector<const Kernel*> rows;
    for (const Kernel& kernel : kernel_table()) {
      if (kernel.op != op || kernel.device != DeviceType::kCuda) continue;
      if (options_.kernel != "all" && options_.kernel != kernel.name) continue;
      std::string reason = kernel.usable().message();
      if (reason.empty()) reason = kernel.refuses(problem);
      if (reason.empty()) {
        rows.push_back(&kernel);
      } else if (options_.kernel == kernel.name) {
        return unsupported("{} cannot run this: {}", kernel.name, reason);
      }
    }
    return rows;
  }

  void measure_product(const Case& c, std::string_view op, const Shape& shape, const Kernel& kernel,
                       const CudaWeights& weights, FunctionRef<Status(int)> call) {
    Row row = row_of(c, op, shape);
    row.kernel = kernel.name;
    row.layout = kernel.layout;
    row.weight_bytes = static_cast<double>(weights.bytes());
    const auto read = [&](int copy) {
      read_all(weights.data(copy), weights.bytes(), meter_.num_sms(), meter_.sink(), meter_.stream());
    };
    const auto time = [&]() -> Status {
      if (options_.kernel != kernel.name && kernel.name.ends_with("_reference") &&
          row.operations() > kMaxReferenceOperations) {
        return unsupported("a reference kernel; --kernel {} times it", kernel.name);
      }
      const CudaUnit& unit = meter_.best_unit(operands_of(c));
      return meter_.time_in_turns({call, read, weights.copies(), &unit}, options_.seconds_a_row, row);
    };
    row.skipped = time().message();
    done_(row);
  }

  // Once for each M and K, whatever N.
  void measure_activations(const Case& c, const Shape& shape) {
    if (!quantized_.insert({c.activation, shape.M, shape.K}).second) return;
    Row row = row_of(c, "quantize_per_token", {shape.M, 0, shape.K});
    row.kernel = row.op;
    const auto time = [&]() -> Status {
      OCTAVO_ASSIGN_OR_RETURN(const CudaActivations x, CudaActivations::make(c.activation, shape.M, shape.K, meter_));
      row.weight_bytes = static_cast<double>(x.bytes());
      return meter_.time_in_turns(
          {[&](int copy) { return x.quantize(copy); }, [&](int copy) { x.move(copy); }, x.copies(), nullptr},
          options_.seconds_a_row, row);
    };
    row.skipped = time().message();
    done_(row);
  }

  Result<const CudaWeights*> get(const WeightFormat& format, DType x, std::int64_t N, std::int64_t K) {
    const auto key = std::tuple(format.num_bits, format.symmetric, format.group_size, x);
    auto found = weights_.find(key);
    if (found == weights_.end()) {
      OCTAVO_ASSIGN_OR_RETURN(CudaWeights made, CudaWeights::make(format, x, N, K, meter_));
      found = weights_.emplace(key, std::move(made)).first;
    }
    return &found->second;
  }

  const Options& options_;
  FunctionRef<void(const Row&)> done_;
  Meter& meter_;
  std::map<std::tuple<int, bool, std::int64_t, DType>, CudaWeights> weights_;
  std::set<std::tuple<DType, std::int64_t, std::int64_t>> quantized_;
};

}  // namespace

Status measure_on_cuda(const Options& options, FunctionRef<void(const Row&)> done) {
  OCTAVO_RETURN_IF_ERROR(cuda::ready(kGpu));
  const cuda::DeviceGuard guard(kGpu);
  OCTAVO_ASSIGN_OR_RETURN(const std::unique_ptr<Meter> meter, Meter::make(kGpu));
  Bench bench(options, done, *meter);
  std::set<std::pair<std::int64_t, std::int64_t>> weights;
  for (const Shape& shape : options.shapes) {
    if (weights.insert({shape.N, shape.K}).second) bench.measure(shape.N, shape.K);
  }
  return {};
}

Result<std::vector<Roof>> measure_roofs_on_cuda() {
  OCTAVO_RETURN_IF_ERROR(cuda::ready(kGpu));
  const cuda::DeviceGuard guard(kGpu);
  OCTAVO_ASSIGN_OR_RETURN(const std::unique_ptr<Meter> meter, Meter::make(kGpu));
  return meter->roofs();
}

}  // namespace octavo::bench
