// Runs the program: exit codes, messages, what it prints.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint/json.h"
#include "checkpoint/make_checkpoint.h"
#include "core/cuda.h"
#include "octavo/version.h"

namespace octavo {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

class Program : public testing::Test {
 protected:
  Outcome run(std::vector<std::string> arguments, const std::string& program = OCTAVO_PROGRAM) {
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const std::string out = directory_.path("stdout");
    const std::string err = directory_.path("stderr");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    pid_t pid = 0;
    EXPECT_EQ(posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    ::waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::read_text(out), test::read_text(err)};
  }

  test::TemporaryDirectory directory_;
  std::string model_ = directory_.path("model");
  std::string out_ = directory_.path("out");
};

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Program, HelpAndVersion) {
  EXPECT_EQ(run({"--help"}).code, 0);
  EXPECT_EQ(run({}).code, 2);
  EXPECT_EQ(run({"version"}).out, "octavo " OCTAVO_VERSION "\n");
  EXPECT_EQ(run({"--version"}).out, "octavo " OCTAVO_VERSION "\n");
  EXPECT_EQ(Json::parse(run({"version", "--json"}).out)["version"], OCTAVO_VERSION);
  for (const std::string verb : {"quantize", "inspect", "kernels", "bench", "doctor", "version"}) {
    const Outcome help = run({verb, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_SAYS(help.out, "Example:\n  octavo " + verb);
  }
}

TEST_F(Program, UsageErrors) {
  test::write_model(model_, test::small_llama());
  EXPECT_EQ(run({"quantise"}).code, 2);
  EXPECT_SAYS(run({"quantise"}).err,
              "'quantise' is not a verb, and there is no program octavo-quantise; verbs are quantize, ");
  EXPECT_EQ(run({"../x"}).code, 2);
  EXPECT_EQ(run({"quantize", model_, out_}).code, 2);
  const Outcome scheme = run({"quantize", model_, out_, "--scheme", "w9a16"});
  EXPECT_EQ(scheme.code, 2);
  EXPECT_SAYS(scheme.err, "octavo quantize: scheme 'w9a16'");
  EXPECT_EQ(run({"quantize", model_, out_, "--scheme", "w8a16", "--layer", "x"}).code, 2);
  EXPECT_EQ(run({"quantize", model_, out_, "--scheme", "w8a16", "--keep", "middle"}).code, 2);
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(Program, Quantizes) {
  test::write_model(model_, test::small_llama());
  const Outcome done =
      run({"quantize", "--ignore", "down_proj", "--ignore", "o_proj", "--scheme", "w4a16-g32", model_, out_});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.err, "");
  EXPECT_SAYS(done.out, "10 of 15 layers");
  EXPECT_SAYS(done.out, "left as they are (output head): lm_head");
  const Outcome again = run({"quantize", model_, out_, "--scheme", "w8a16"});
  EXPECT_EQ(again.code, 1);
  EXPECT_EQ(again.err, "octavo quantize: " + out_ + ": exists; choose another name, or --force replaces it\n");
  EXPECT_EQ(run({"quantize", model_, out_, "--scheme", "w8a16", "--force", "--quiet", "--threads", "2"}).out, "");

  const Json listed = Json::parse(run({"inspect", out_, "--json"}).out);
  EXPECT_EQ(listed["quantization_config"]["format"], "pack-quantized");
  int schemes = 0;
  for (const Json& tensor : listed["tensors"]) schemes += tensor["scheme"] == "w8a16";
  EXPECT_EQ(schemes, 14);
  EXPECT_SAYS(run({"inspect", out_}).out, "quantized: compressed-tensors pack-quantized");
}

TEST_F(Program, DryRunWritesNothing) {
  test::write_model(model_, test::small_llama());
  const Outcome plan = run({"quantize", model_, out_, "--scheme", "w8a8", "--keep", "first,attn-out", "--dry-run"});
  EXPECT_EQ(plan.code, 0);
  EXPECT_SAYS(plan.out, "6 of 15 layers are quantized");
  EXPECT_SAYS(plan.out, "stays: --keep first");
  EXPECT_SAYS(plan.out, "stays: --keep attn-out");
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_FALSE(fs::exists(out_ + ".partial"));
  EXPECT_EQ(Json::parse(run({"quantize", model_, out_, "--scheme", "w8a8", "--dry-run", "--json"}).out)["layers"].size(),
            15u);
}

TEST_F(Program, FailuresAreOneLine) {
  const Outcome missing = run({"inspect", directory_.path("none")});
  EXPECT_EQ(missing.code, 1);
  EXPECT_EQ(missing.err, "octavo inspect: " + directory_.path("none") + ": no such file or directory\n");
  test::write_model(model_, test::small_llama(), R"({"quantization_config": {}})");
  const Outcome quantized = run({"quantize", model_, out_, "--scheme", "w8a16"});
  EXPECT_EQ(quantized.code, 1);
  EXPECT_EQ(std::count(quantized.err.begin(), quantized.err.end(), '\n'), 1);
}

TEST_F(Program, KernelsAreListed) {
  const Json kernels = Json::parse(run({"kernels", "--json"}).out);
  ASSERT_FALSE(kernels.empty());
  for (const Json& kernel : kernels) EXPECT_EQ(kernel["usable"] == true, kernel["reason"].is_null());
  EXPECT_SAYS(run({"kernels"}).out, kernels[0]["name"].get<std::string>());
}

TEST_F(Program, BenchmarksWhatItIsAsked) {
  const std::string file = directory_.path("figures.json");
  const Outcome done =
      run({"bench", "--device", "cpu", "--shapes", "2x64x64,96x128", "--rows", "1,3", "--schemes",
           "w8a16:float32,w4a16-g32-asym,w8a8,w4a8-g32,llm.int8", "--threads", "1,2", "--seconds", "0", "--json", file});
  ASSERT_EQ(done.code, 0) << done.err;
  const Json figures = Json::parse(test::read_text(file));
  ASSERT_EQ(figures["rows"].size(), 30u);  // 3 shapes, 5 schemes, 2 numbers of threads
  EXPECT_GT(figures["last_level_bytes"], 0);
  for (const Json& row : figures["rows"]) {
    for (const char* key : {"us", "gbps", "tops", "roof_us", "roof_fraction", "read_gbps", "multiply_tops"}) {
      EXPECT_GT(row[key], 0);
    }
    EXPECT_TRUE(row["limit"] == "bandwidth" || row["limit"] == "compute") << row["limit"];
    EXPECT_GE(row["repeats"], 5);
    EXPECT_GE(row["spread"], 0);
    EXPECT_SAYS(done.out, row["kernel"].get<std::string>());
  }
  EXPECT_EQ(figures["rows"][0]["op"], "linear");
  EXPECT_EQ(figures["rows"][0]["activation"], "float32");
}

TEST_F(Program, BenchmarksKernelsByName) {
  const std::string file = directory_.path("figures.json");
  const auto kernels_of = [&](const std::string& kernel) {
    EXPECT_EQ(
        run({"bench", "--shapes", "1x64x64", "--seconds", "0", "--threads", "1", "--kernel", kernel, "--json", file}).code,
        0);
    std::vector<std::string> names;
    const Json figures = Json::parse(test::read_text(file));
    for (const Json& row : figures["rows"]) names.push_back(row["kernel"]);
    return names;
  };
  EXPECT_EQ(kernels_of("cpu_s8_w8_reference"), std::vector<std::string>{"cpu_s8_w8_reference"});
  const std::vector<std::string> all = kernels_of("all");
  for (const Json& kernel : Json::parse(run({"kernels", "--json"}).out)) {
    const std::string name = kernel["name"];
    if (kernel["device"] != "cpu" || !name.ends_with("_reference")) continue;
    EXPECT_TRUE(std::find(all.begin(), all.end(), name) != all.end()) << name;
  }
}

TEST_F(Program, BenchmarkRefusesWhatItCannotTime) {
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{{"--kernel", "cpu_none"},
                                             {"--shapes", "64"},
                                             {"--shapes", "1x2x3x4"},
                                             {"--shapes", "0x64x64"},
                                             {"--schemes", "w8a8-static"},
                                             {"--schemes", "w8a16:int8"},
                                             {"--threads", "0"},
                                             {"--rows", "0"},
                                             {"--device", "gpu"},
                                             {"--device", "cuda", "--shapes", "64"},
                                             {"--device", "cuda", "--rows", "0"},
                                             {"--device", "cuda", "--threads", "1"},
                                             {"--device", "cuda", "--kernel", "none"},
                                             {"--kernel", "cuda_s8_w8_reference"}}) {
    std::vector<std::string> arguments = {"bench"};
    arguments.insert(arguments.end(), wrong.begin(), wrong.end());
    const Outcome refused = run(arguments);
    EXPECT_EQ(refused.code, 2) << wrong[1];
    EXPECT_SAYS(refused.err, "octavo bench: ");
  }
  EXPECT_EQ(run({"bench", "--json", directory_.path("none/figures.json")}).code, 1);
}

TEST_F(Program, BenchmarkSaysWhereAKernelRuns) {
  const Outcome refused = run({"bench", "--device", "cuda", "--kernel", "cpu_s8_w8_reference"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_SAYS(refused.err, "cpu_s8_w8_reference does not run on cuda; use --device cpu");
}

TEST_F(Program, BenchmarksAGpuOrSaysWhatIsMissing) {
  const std::string file = directory_.path("figures.json");
  const Outcome done = run({"bench", "--device", "cuda", "--shapes", "3x64x96", "--schemes", "w8a8", "--seconds", "0",
                            "--kernel", "all", "--json", file});
  if (const Status ready = cuda::ready({DeviceType::kCuda, 0}); !ready.ok()) {
    EXPECT_EQ(done.code, 1);
    EXPECT_SAYS(done.err, "octavo bench: --device cuda: " + ready.message());
    EXPECT_SAYS(done.err, "octavo doctor");
    EXPECT_EQ(done.out, "");
    EXPECT_FALSE(fs::exists(file));
    EXPECT_EQ(run({"bench", "--device", "cuda", "--roofs"}).code, 1);
    return;
  }
  ASSERT_EQ(done.code, 0) << done.err;
  const Json figures = Json::parse(test::read_text(file));
  EXPECT_EQ(figures["gpu"], cuda::gpus()[0].name);
  ASSERT_GE(figures["rows"].size(), 3u);  // quantize_per_token; scaled_mm and linear_w8a8 on every row
  for (const Json& row : figures["rows"]) {
    for (const char* key : {"us", "gbps", "roof_us", "roof_fraction", "read_gbps"}) EXPECT_GT(row[key], 0);
    EXPECT_SAYS(done.out, row["kernel"].get<std::string>());
  }
}

TEST_F(Program, DoctorSaysWhatItFinds) {
  const Outcome told = run({"doctor"});
  EXPECT_EQ(told.code, 0);
  EXPECT_SAYS(told.out, "octavo      " OCTAVO_VERSION);
  const Json facts = Json::parse(run({"doctor", "--json"}).out);
  EXPECT_GT(facts["threads"], 0);
  EXPECT_EQ(facts["OCTAVO_KERNEL"], nullptr);
  for (const Json& kernel : facts["kernels"]) EXPECT_SAYS(told.out, kernel["kernel"].get<std::string>());

  ::setenv("OCTAVO_KERNEL", "cpu_s8_w8_reference", 1);
  ::setenv("OCTAVO_NUM_THREADS", "many", 1);
  const Outcome forced = run({"doctor"});
  ::unsetenv("OCTAVO_KERNEL");
  ::unsetenv("OCTAVO_NUM_THREADS");
  EXPECT_EQ(forced.code, 0);
  EXPECT_SAYS(forced.out, "OCTAVO_KERNEL=cpu_s8_w8_reference forces a kernel");
  EXPECT_SAYS(forced.out, "OCTAVO_NUM_THREADS=many is no number from 1 to 4096");
}

TEST_F(Program, OtherVerbsAreProgramsBesideIt) {
  const std::string copy = directory_.path("octavo");
  fs::copy_file(OCTAVO_PROGRAM, copy);
  test::write_text(directory_.path("octavo-echo"), "#!/bin/sh\necho \"$1 $2\"\nexit 7\n");
  fs::permissions(directory_.path("octavo-echo"), fs::perms::owner_all);
  const Outcome echo = run({"echo", "a b", "c"}, copy);
  EXPECT_EQ(echo.code, 7);
  EXPECT_EQ(echo.out, "a b c\n");
}

TEST_F(Program, AnInterruptLeavesNothingAndExitsWith130) {
  // Large enough to be caught at work; the values do not matter.
  test::write_model(model_,
                    {{"a.weight", test::Tensor{"F32", {16384, 4096}, std::string(std::size_t{16384} * 4096 * 4, '\0')}}});
  std::string program = OCTAVO_PROGRAM;
  std::vector<std::string> arguments = {program, "quantize", model_, out_,        "--scheme",
                                        "w4a16", "--clip",   "mse",  "--threads", "1"};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  ASSERT_EQ(posix_spawn(&pid, program.c_str(), nullptr, nullptr, argv.data(), environ), 0);
  while (!fs::exists(out_ + ".partial/model.safetensors") && !fs::exists(out_)) ::usleep(1000);
  ::kill(pid, SIGINT);
  int status = 0;
  ::waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_FALSE(fs::exists(out_ + ".partial"));
}

}  // namespace
}  // namespace octavo
