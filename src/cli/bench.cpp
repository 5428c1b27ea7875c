#include <algorithm>
#include <fstream>

#include "bench/measure.h"
#include "bench/report.h"
#include "bench/roofs.h"
#include "cli/verb.h"
#include "core/cpu_features.h"
#include "core/error.h"
#include "core/format.h"
#include "core/machine.h"
#include "core/macros.h"

namespace octavo::cli {
namespace {

// Language models' usual layers, and one that fits in a cache.
const std::vector<std::string> kShapes = {"4096x4096", "14336x4096", "4096x14336", "576x1536"};

constexpr const char* kFooter =
    R"(Weights are cold: copies take turns that are larger than four times the last-level cache. Every
product takes turns with a plain read loop over as many bytes and with a loop of the multiply instruction, with as
many threads; the larger of the two times is its roof. GB/s count the weight, packed, with its scales.

Example:
  octavo bench
  octavo bench --shapes 1x4096x4096,16x4096x4096 --schemes w8a16:float32 --threads 1
  octavo bench --shapes 4096x4096 --rows 1,4 --kernel all --json figures.json
  octavo bench --roofs)";

Json machine_facts() {
  return {{"cpu", cpu_name()},
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
};

bool is_kernel(const std::string& name) {
  const std::vector<KernelInfo> kernels = list_kernels();
  return std::any_of(kernels.begin(), kernels.end(), [&](const KernelInfo& kernel) { return kernel.name == name; });
}

Status understand(const Words& words, bench::Options& options) {
  if (words.device != "cpu") return unsupported("--device {}: only cpu has kernels to time", words.device);
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
  if (options.cases.empty()) options.cases = bench::default_cases();
  if (!options.kernel.empty() && options.kernel != "all" && !is_kernel(options.kernel)) {
    return not_found("there is no kernel '{}'; `octavo kernels` lists them", options.kernel);
  }
  return {};
}

Json print_rows(const bench::Options& options) {
  Json rows = Json::array();
  print_text("{}, last-level cache {} MiB\n{}", cpu_name(), last_level_bytes() >> 20, bench::table_head());
  bench::measure(options, [&](const bench::Row& row) {
    print_text("{}", bench::table_line(row));
    std::fflush(stdout);
    if (row.skipped.empty()) rows.push_back(bench::to_json(row));
  });
  return rows;
}

// Every roof of this machine, without products.
Json print_roofs(const std::vector<int>& threads) {
  Json rows = Json::array();
  print_text("{:>7}  {:<16} {:>14} {:>7}\n", "threads", "roof", "rate", "spread");
  for (const int count : threads) {
    for (const bench::Roof& roof : bench::measure_roofs(count)) {
      print_text("{:>7}  {:<16} {:>9.3f} {} {:>6.0f}%\n", count, roof.name, roof.value, roof.unit, 100 * roof.spread);
      rows.push_back({{"threads", count},
                      {"roof", roof.name},
                      {roof.unit == "GB/s" ? "gbps" : "tops", roof.value},
                      {"spread", roof.spread}});
    }
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
  app.add_option("--device", words.device, "where: cpu")->capture_default_str();
  app.add_option("--shapes", words.shapes, "MxNxK, or NxK with every M of --rows")->delimiter(',')->capture_default_str();
  app.add_option("--rows", words.rows, "M of shapes given as NxK")->delimiter(',')->capture_default_str();
  app.add_option("--schemes", words.schemes, "SCHEME or SCHEME:DTYPE, the type of x (bfloat16); every kind of product")
      ->delimiter(',');
  app.add_option("--threads", options.threads, "numbers of threads")->delimiter(',')->capture_default_str();
  app.add_option("--kernel", options.kernel, "time this kernel, or all that can, instead of the one that is chosen")
      ->type_name("NAME");
  app.add_option("--seconds", options.seconds_a_row, "time for a row of the table")->capture_default_str();
  app.add_option("--json", file, "write the figures to this file, too")->type_name("FILE");
  app.add_flag("--roofs", roofs, "only the roofs");
  app.footer(kFooter);
  if (const auto code = parse(app, argc, argv)) return *code;
  if (const Status status = understand(words, options); !status.ok()) return usage_error(app, status.message());

  std::ofstream out;
  if (!file.empty()) {
    out.open(file);  // now, not after minutes of measuring
    if (!out) return fail(app, io_error("{}: cannot be written", file));
  }
  Json figures = machine_facts();
  if (roofs) {
    figures["roofs"] = print_roofs(options.threads);
  } else {
    figures["rows"] = print_rows(options);
  }
  if (out.is_open() && !(out << to_text(figures)).flush()) return fail(app, io_error("{}: writing failed", file));
  return kOk;
}

}  // namespace octavo::cli
