// `octavo bench --device cuda`: which rows it times, and that its figures can be.
#include "core/cuda.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "bench/on_cuda.h"
#include "bench/report.h"
#include "gemm/kernels.h"

namespace octavo::bench {
namespace {

constexpr Device kGpu = {DeviceType::kCuda, 0};

class CudaBench : public testing::Test {
 protected:
  void SetUp() override {
    if (const Status ready = cuda::ready(kGpu); !ready.ok()) GTEST_SKIP() << ready.message();
  }

  std::vector<Row> measure(const std::vector<std::string>& schemes, const Shape& shape, const std::string& kernel) {
    Options options = {{}, {shape}, {}, kernel, 0};
    for (const std::string& text : schemes) options.cases.push_back(parse_case(text).value());
    std::vector<Row> rows;
    const Status status = measure_on_cuda(options, [&](const Row& row) { rows.push_back(row); });
    EXPECT_TRUE(status.ok()) << status.message();
    return rows;
  }
};

TEST_F(CudaBench, TimesEveryRowOfTheTableThatTakesAShape) {
  const std::vector<std::string> schemes = {"w8a16", "w8a16:float32", "w4a16-g32-asym:float16", "w8a8"};
  for (const Shape shape : {Shape{3, 64, 96}, Shape{1, 128, 256}, Shape{70, 33, 45}}) {
    std::set<std::string> expected;
    for (const std::string& scheme : schemes) {
      const Case c = parse_case(scheme).value();
      Problem problem = problem_of(c, shape, Layout::kRowMajor);
      problem.device = kGpu;
      problem.alignment = shape.K % 16 == 0 ? 16 : 1;
      for (const Kernel& kernel : kernel_table()) {
        if (kernel.device != DeviceType::kCuda || kernel.op != problem.op || !kernel.usable().ok()) continue;
        if (!kernel.refuses(problem).empty()) continue;
        expected.insert(scheme + ' ' + std::string(to_string(problem.op)) + ' ' + std::string(kernel.name));
        if (scheme == "w8a8") expected.insert("w8a8 linear_w8a8 " + std::string(kernel.name));
      }
    }
    expected.insert("w8a8 quantize_per_token quantize_per_token");
    std::set<std::string> timed;
    for (const Row& row : measure(schemes, shape, "all")) {
      ASSERT_EQ(row.skipped, "") << row.kernel;
      std::string scheme = to_string(row.what.scheme);
      if (row.what.activation != DType::kBFloat16) scheme += ":" + std::string(to_string(row.what.activation));
      timed.insert(scheme + ' ' + std::string(row.op) + ' ' + row.kernel);
      const Json json = to_json(row);
      for (const char* key : {"us", "gbps", "read_gbps", "roof_us", "launch_us", "bandwidth_gbps"}) {
        EXPECT_GT(json[key].get<double>(), 0) << key << ' ' << row.kernel;
      }
      EXPECT_GE(row.repeats, 5u);
      EXPECT_DOUBLE_EQ(json["gbps"].get<double>() * row.time.median, row.weight_bytes * 1e-9);
      EXPECT_LT(row.roof_fraction(), 1.5) << row.op << ' ' << row.kernel << ": faster than what limits it";
      EXPECT_EQ(json["limit"], "launch") << row.kernel;  // so few bytes
      EXPECT_NE(table_line(row).find(row.kernel), std::string::npos);
      if (row.op != "quantize_per_token") {
        EXPECT_GT(json["multiply_tops"], 0);
      }
    }
    EXPECT_EQ(timed, expected);
  }
}

TEST_F(CudaBench, ARowIsTimedByNameAndSaysWhyNot) {
  const std::vector<Row> named = measure({"w8a8"}, {3, 64, 96}, "cuda_s8_w8_reference");
  ASSERT_EQ(named.size(), 2u);
  for (const Row& row : named) EXPECT_EQ(row.kernel, "cuda_s8_w8_reference");
  const std::vector<Row> integers = measure({"w8a8"}, {1, 16, kMaxIntegerK + 1}, "");
  ASSERT_EQ(integers.size(), 1u);
  EXPECT_NE(integers[0].skipped.find("exact"), std::string::npos) << integers[0].skipped;
  const std::vector<Row> large = measure({"w8a16"}, {1, 1 << 25, 1 << 25}, "");
  ASSERT_EQ(large.size(), 1u);
  EXPECT_NE(large[0].skipped.find("MiB"), std::string::npos) << large[0].skipped;
}

// A weight much larger than the cache is read as fast as a gigabyte is; were either found in a cache, it would not be.
TEST_F(CudaBench, BytesAreCold) {
  for (const Row& row : measure({"w8a8"}, {1, 16384, 16384}, "")) {
    if (row.op == "quantize_per_token") continue;
    ASSERT_EQ(row.skipped, "");
    EXPECT_NEAR(row.weight_bytes / row.read_seconds / row.bytes_a_second, 1, 0.15) << row.op;
    EXPECT_EQ(row.limit(), Limit::kBandwidth) << row.op;
    EXPECT_LT(row.roof_fraction(), 1.1) << row.op;
  }
}

TEST_F(CudaBench, RoofsAreThoseOfAGpu) {
  const auto roofs = measure_roofs_on_cuda();
  ASSERT_TRUE(roofs.ok()) << roofs.status().message();
  std::set<std::string_view> units;
  std::map<std::string_view, double> widest;
  for (const Roof& roof : *roofs) {
    units.insert(roof.unit);
    if (roof.unit == "TOPS") {  // of each kind of operands, the widest instruction is the first and the fastest
      const double first = widest.try_emplace(roof.name.substr(roof.name.rfind(' ')), roof.value).first->second;
      EXPECT_LE(roof.value, 1.05 * first) << roof.name;
    }
    EXPECT_GT(roof.value, 0) << roof.name;
    if (roof.unit == "us") {
      EXPECT_LT(roof.value, 100) << roof.name;
    }
  }
  EXPECT_EQ(units, (std::set<std::string_view>{"GB/s", "TOPS", "us"}));
}

}  // namespace
}  // namespace octavo::bench
