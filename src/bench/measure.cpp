#include "bench/measure.h"

#include <algorithm>
#include <map>

#include "bench/forced_kernel.h"
#include "bench/product.h"
#include "bench/roofs.h"
#include "core/error.h"
#include "core/machine.h"
#include "core/macros.h"
#include "gemm/kernels.h"

namespace octavo::bench {
namespace {

constexpr std::size_t kMinRepeats = 5;
constexpr std::size_t kMaxRepeats = 5000;
constexpr std::size_t kMultiplyRepeats = 9;

// Reference kernels are here to be read, not to be fast.
constexpr double kMaxReferenceOperations = 2e8;

// What the multiply units get: 16-bit activations that are not bfloat16 are widened.
std::string_view operands_of(const Case& c) {
  if (op_of(c.scheme) != Op::kLinear) return "int8";
  return c.activation == DType::kBFloat16 ? "bf16" : "fp32";
}

// scaled_mm is timed with the quantization of x before it.
std::string_view op_name(const Case& c) {
  const Op op = op_of(c.scheme);
  return op == Op::kScaledMm ? "linear_w8a8" : to_string(op);
}

// The product, the read loop and the multiply loop in turns, so that what disturbs the machine disturbs all three.
Status time_in_turns(const Product& product, ColdWeights& weights, double budget, Parallel& parallel, Row& row) {
  const Unit& unit = best_unit(operands_of(row.what));
  std::vector<double> times;
  std::vector<double> reads;
  std::vector<double> rates;
  Status status = product.run(weights.next(), parallel);  // touches what is not yet
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  volatile std::uint64_t sink = 0;
  while (status.ok() && times.size() < kMaxRepeats && (times.size() < kMinRepeats || elapsed() < budget)) {
    const ColdWeights::Copy to_read = weights.next();
    reads.push_back(seconds_of([&] { sink = read_all(to_read.bytes, parallel); }));
    const ColdWeights::Copy w = weights.next();
    times.push_back(seconds_of([&] { status = product.run(w, parallel); }));
    if (rates.size() < kMultiplyRepeats) rates.push_back(multiply_rate(unit, parallel));
  }
  OCTAVO_RETURN_IF_ERROR(status);
  row.layout = weights.layout();
  row.weight_bytes = static_cast<double>(weights.bytes());
  row.time = timing_of(times);
  row.repeats = times.size();
  row.read_seconds = timing_of(reads).median;
  row.unit = unit.name;
  row.operations_a_second = timing_of(rates).median;
  return {};
}

// Everything that is timed with the weights of one shape [N, K].
class Weights {
 public:
  Weights(std::int64_t N, std::int64_t K) : N_(N), K_(K), cache_bytes_(last_level_bytes()) {}

  Result<ColdWeights*> get(const WeightFormat& format, Layout layout, Parallel& parallel) {
    const auto key = std::tuple(format.num_bits, format.symmetric, format.group_size, layout);
    auto found = made_.find(key);
    if (found == made_.end()) {
      OCTAVO_ASSIGN_OR_RETURN(ColdWeights made, ColdWeights::make(format, N_, K_, layout, cache_bytes_, parallel));
      found = made_.emplace(key, std::move(made)).first;
    }
    return &found->second;
  }

 private:
  std::int64_t N_, K_, cache_bytes_;
  std::map<std::tuple<int, bool, std::int64_t, Layout>, ColdWeights> made_;
};

// One row: `forced` names a kernel and says the layout of its weights; nothing leaves both to the table.
Row measure_row(const Case& c, const Shape& shape, const Kernel* forced, const Options& options, Weights& all,
                Parallel& parallel) {
  Row row = {};
  row.what = c;
  row.op = op_name(c);
  row.shape = shape;
  row.threads = parallel.num_threads();
  const ForcedKernel environment(forced != nullptr ? std::string(forced->name) : "");
  const Layout layout = forced != nullptr ? forced->layout : best_layout(problem_of(c, shape, Layout::kRowMajor));
  const auto attempt = [&]() -> Status {
    OCTAVO_ASSIGN_OR_RETURN(const Selection chosen, select_kernel(problem_of(c, shape, layout)));
    row.kernel = chosen.kernel;
    if (options.kernel != row.kernel && row.kernel.ends_with("_reference") && row.operations() > kMaxReferenceOperations) {
      return unsupported("a reference kernel; --kernel {} times it", row.kernel);
    }
    OCTAVO_ASSIGN_OR_RETURN(ColdWeights* const weights, all.get(c.scheme.weight, layout, parallel));
    const Product product(c, shape);
    return time_in_turns(product, *weights, options.seconds_a_row, parallel, row);
  };
  if (const Status status = attempt(); !status.ok()) {
    row.skipped = status.message();
    if (forced != nullptr) row.kernel = forced->name;
  }
  return row;
}

// The rows of the table to time for an operation; a null row is the table's choice.
std::vector<const Kernel*> rows_for(const Options& options, Op op) {
  if (options.kernel.empty()) return {nullptr};
  std::vector<const Kernel*> rows;
  for (const Kernel& kernel : kernel_table()) {
    if (kernel.op != op || kernel.device != DeviceType::kCpu) continue;
    if (options.kernel == kernel.name || (options.kernel == "all" && kernel.usable().ok())) rows.push_back(&kernel);
  }
  return rows;
}

}  // namespace

double Row::operations() const {
  return 2 * static_cast<double>(shape.M) * static_cast<double>(shape.N) * static_cast<double>(shape.K);
}

double Row::roof_seconds() const { return std::max({read_seconds, multiply_seconds(), launch_seconds}); }

// Reading takes a launch too: where the bytes alone, at the rate of many, would take less than one, it is the launch.
Limit Row::limit() const {
  if (multiply_seconds() == roof_seconds()) return Limit::kCompute;
  if (bytes_a_second > 0 && weight_bytes / bytes_a_second < launch_seconds) return Limit::kLaunch;
  return Limit::kBandwidth;
}

std::string_view to_string(Limit limit) {
  switch (limit) {
    case Limit::kBandwidth:
      return "bandwidth";
    case Limit::kCompute:
      return "compute";
    case Limit::kLaunch:
      return "launch";
  }
  return "unknown";
}

void measure(const Options& options, FunctionRef<void(const Row&)> done) {
  std::map<int, std::unique_ptr<Parallel>> pools;
  for (const int threads : options.threads) pools[threads] = make_thread_pool(threads);
  std::vector<Shape> left = options.shapes;
  while (!left.empty()) {
    const Shape first = left.front();
    const auto same = [&](const Shape& s) { return s.N == first.N && s.K == first.K; };
    Weights weights(first.N, first.K);
    for (const Case& c : options.cases) {
      const std::vector<const Kernel*> rows = rows_for(options, op_of(c.scheme));
      for (const int threads : options.threads) {
        for (const Shape& shape : left) {
          if (!same(shape)) continue;
          for (const Kernel* row : rows) {
            // Of all rows, those that do not take the problem are left out: `octavo kernels` says what each is for.
            const bool all = options.kernel == "all";
            if (all && !row->refuses(problem_of(c, shape, row->layout)).empty()) continue;
            done(measure_row(c, shape, row, options, weights, *pools[threads]));
          }
        }
      }
    }
    std::erase_if(left, same);
  }
}

}  // namespace octavo::bench
