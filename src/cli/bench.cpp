#include <fstream>

#include "bench/measure.h"
#include "bench/on_cuda.h"
#include "bench/report.h"
#include "bench/roofs.h"
#include "cli/verb.h"
#include "core/cpu_features.h"
#include "core/cuda.h"
#include "core/error.h"
#include "core/format.h"
#include "core/machine.h"
#include "core/macros.h"
#include "gemm/kernels.h"

namespace octavo::cli {
namespace {

// Language models' usual layers, and one that fits in a cache.
const std::vector<std::string> kShapes = {"4096x4096", "14336x4096", "4096x14336", "576x1536"};

constexpr const char* kFooter =
    R"(Weights are cold: copies take turns that are larger than four times the last-level cache. Every
product takes turns with a plain read loop over as many bytes and with a loop of the multiply instruction, with as
many threads; the larger of the two times is its roof. GB/s count the weight, packed, with its scales.

On CUDA, products are replays of CUDA graphs on the first GPU, and no faster than their kernels are launched, either. W8A8 is
timed as a whole (linear_w8a8) and in its parts.

Example:
  octavo bench
  octavo bench --device cuda --kernel all --shapes 4096x4096
  octavo bench --shapes 1x4096x4096,16x4096x4096 --schemes w8a16:float32 --threads 1
  octavo bench --shapes 4096x4096 --rows 1,4 --kernel all --json figures.json
  octavo bench --roofs)";

Json machine_facts(DeviceType device) {
  if (device == DeviceType::kCuda) {
    const cuda::Gpu& gpu = cuda::gpus().front();
    return {{"device", "cuda"},
            {"gpu", gpu.name},
            {"compute_capability", format_text("{}.{}", gpu.major, gpu.minor)},
            {"sms", gpu.num_sms},
            {"bytes", gpu.memory},
            {"last_level_bytes", gpu.l2_bytes},
            {"driver", nvidia_driver(kNvidiaFile)},
            {"cuda_driver", cuda::driver_version()},
            {"cuda_runtime", cuda::runtime_version()}};
  }
  return {{"device", "cpu"},
          {"cpu", cpu_name()},
          {"features", to_string(cpu_features())},
          {"last_level_bytes", last_level_bytes()},
          {"huge_pages", huge_page_setting(kHugePageFile)}};
}

// What the command line says, before it is understood.
struct Words {
  std::string device = "cpu";
  std::vector<std::string> shapes = kShapes;
  std::vector<std::int64_t> rows = {1, 4, 16, 64, 512};
  std::vector<std::string> schemes;

  DeviceType device_type() const { return device == "cuda" ? DeviceType::kCuda : DeviceType::kCpu; }
};

// Whether a kernel of the table runs on the device. The table is read without asking whether this machine can run its rows.
Status check_kernel(const std::string& name, const Words& words) {
  if (name.empty() || name == "all") return {};
  for (const Kernel& kernel : kernel_table()) {
    if (kernel.name != name) continue;
    if (kernel.device == words.device_type()) return {};
    return invalid("--kernel {} does not run on {}; use --device {}", name, words.device,
                   kernel.device == DeviceType::kCuda ? "cuda" : "cpu");
  }
  return not_found("there is no kernel '{}'; `octavo kernels` lists them", name);
}

Status understand(const Words& words, bench::Options& options) {
  if (words.device != "cpu" && words.device != "cuda") return invalid("--device {} is neither cpu nor cuda", words.device);
  for (const int count : options.threads) {
    if (count < 1 || count > 4096) return invalid("--threads {} is not from 1 to 4096", count);
  }
  for (const std::int64_t M : words.rows) {
    if (M < 1) return invalid("--rows {}: a product has at least one row", M);
  }
  for (const std::string& text : words.shapes) {
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<bench::Shape> parsed, bench::parse_shape(text, words.rows));
    options.shapes.insert(options.shapes.end(), parsed.begin(), parsed.end());
  }
  for (const std::string& text : words.schemes) {
    OCTAVO_ASSIGN_OR_RETURN(options.cases.emplace_back(), bench::parse_case(text));
  }
  if (options.cases.empty()) options.cases = bench::default_cases(words.device_type());
  return check_kernel(options.kernel, words);
}

// Whether products can be timed there, and if not, what helps.
Status check_device(DeviceType device) {
  if (device == DeviceType::kCpu) return {};
  const Status ready = cuda::ready({DeviceType::kCuda, 0});
  if (ready.ok()) return {};
  return unsupported("--device cuda: {}; `octavo doctor` says what it finds, --device cpu times the processor",
                     ready.message());
}

Result<Json> print_rows(DeviceType device, const bench::Options& options) {
  Json rows = Json::array();
  const auto print = [&](const bench::Row& row) {
    print_text("{}", bench::table_line(row));
    std::fflush(stdout);
    if (row.skipped.empty()) rows.push_back(bench::to_json(row));
  };
  if (device == DeviceType::kCuda) {
    const cuda::Gpu& gpu = cuda::gpus().front();
    print_text("{}, {} SMs, second-level cache {} MiB\n{}", gpu.name, gpu.num_sms, gpu.l2_bytes >> 20,
               bench::table_head(device));
    OCTAVO_RETURN_IF_ERROR(bench::measure_on_cuda(options, print));
  } else {
    print_text("{}, last-level cache {} MiB\n{}", cpu_name(), last_level_bytes() >> 20, bench::table_head(device));
    bench::measure(options, print);
  }
  return rows;
}

// Prints a roof, and what the report says of it.
Json print_roof(int threads, const bench::Roof& roof) {
  print_text("{:>7}  {:<16} {:>9.3f} {:<4} {:>6.0f}%\n", threads == 0 ? "-" : std::to_string(threads), roof.name, roof.value,
             roof.unit, 100 * roof.spread);
  return {{"threads", threads == 0 ? Json(nullptr) : Json(threads)},
          {"roof", roof.name},
          {roof.unit == "GB/s"   ? "gbps"
           : roof.unit == "TOPS" ? "tops"
                                 : "us",
           roof.value},
          {"spread", roof.spread}};
}

// Every roof of this machine, without products.
Result<Json> print_roofs(DeviceType device, const std::vector<int>& threads) {
  Json rows = Json::array();
  print_text("{:>7}  {:<16} {:>14} {:>7}\n", "threads", "roof", "rate", "spread");
  if (device == DeviceType::kCuda) {
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<bench::Roof> roofs, bench::measure_roofs_on_cuda());
    for (const bench::Roof& roof : roofs) rows.push_back(print_roof(0, roof));
    return rows;
  }
  for (const int count : threads) {
    for (const bench::Roof& roof : bench::measure_roofs(count)) rows.push_back(print_roof(count, roof));
  }
  return rows;
}

}  // namespace

int bench(int argc, char** argv) {
  CLI::App app("Times products with quantized weights beside what limits them: reading memory and multiplying.",
               "octavo bench");
  Words words;
  bench::Options options;
  options.threads = {1};
  if (default_num_threads() > 1) options.threads.push_back(default_num_threads());
  std::string file;
  bool roofs = false;
  app.add_option("--device", words.device, "where: cpu or cuda")->capture_default_str();
  app.add_option("--shapes", words.shapes, "MxNxK, or NxK with every M of --rows")->delimiter(',')->capture_default_str();
  app.add_option("--rows", words.rows, "M of shapes given as NxK")->delimiter(',')->capture_default_str();
  app.add_option("--schemes", words.schemes, "SCHEME or SCHEME:DTYPE, the type of x (bfloat16); every kind of product")
      ->delimiter(',');
  const auto* threads =
      app.add_option("--threads", options.threads, "numbers of threads, on the CPU")->delimiter(',')->capture_default_str();
  app.add_option("--kernel", options.kernel, "time this kernel, or all that can, instead of the one that is chosen")
      ->type_name("NAME");
  app.add_option("--seconds", options.seconds_a_row, "time for a row of the table")->capture_default_str();
  app.add_option("--json", file, "write the figures to this file, too")->type_name("FILE");
  app.add_flag("--roofs", roofs, "only the roofs");
  app.footer(kFooter);
  if (const auto code = parse(app, argc, argv)) return *code;
  if (const Status status = understand(words, options); !status.ok()) return usage_error(app, status.message());
  const DeviceType device = words.device_type();
  if (device == DeviceType::kCuda && threads->count() > 0) return usage_error(app, "--threads is for --device cpu");
  if (const Status status = check_device(device); !status.ok()) return fail(app, status);

  std::ofstream out;
  if (!file.empty()) {
    out.open(file);  // now, not after minutes of measuring
    if (!out) return fail(app, io_error("{}: cannot be written", file));
  }
  Json figures = machine_facts(device);
  Result<Json> rows = roofs ? print_roofs(device, options.threads) : print_rows(device, options);
  if (!rows.ok()) return fail(app, rows.status());
  figures[roofs ? "roofs" : "rows"] = std::move(*rows);
  if (out.is_open() && !(out << to_text(figures)).flush()) return fail(app, io_error("{}: writing failed", file));
  return kOk;
}

}  // namespace octavo::cli
