#include <cstdlib>
#include <fstream>
#include <iterator>

#include "bench/cases.h"
#include "checkpoint/json.h"
#include "cli/verb.h"
#include "core/cpu_features.h"
#include "core/cpu_limits.h"
#include "core/cuda.h"
#include "core/format.h"
#include "core/machine.h"
#include "octavo/version.h"

namespace octavo::cli {
namespace {

constexpr std::int64_t kSize = 4096;  // N and K of the products that kernels are named for

struct Facts {
  std::vector<CacheLevel> caches = cache_levels(kCpuRoot, allowed_cpus());
  int cpus = static_cast<int>(allowed_cpus().size());
  std::optional<int> quota;
  std::string threads_variable;  // empty: not set
  std::string kernel_variable;
  std::string huge_pages = huge_page_setting(kHugePageFile);
  Status cuda = cuda::usable();
  std::string driver = nvidia_driver(kNvidiaFile);
};

// A kernel that a scheme runs on, or why there is none.
struct Choice {
  Device device;
  bench::Case what;
  std::int64_t M;
  Layout layout;
  std::string kernel;
  std::string reason;
};

struct Finding {
  std::string problem;
  std::string advice;
};

std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

Facts find_facts() {
  Facts facts;
  std::ifstream file("/proc/self/cgroup");
  facts.quota = cgroup_cpu_limit("/sys/fs/cgroup", std::string(std::istreambuf_iterator<char>(file), {}));
  facts.threads_variable = variable("OCTAVO_NUM_THREADS");
  facts.kernel_variable = variable("OCTAVO_KERNEL");
  return facts;
}

// Of a GPU, only the schemes that some kernel of its own computes: the package computes the others with torch's.
std::vector<Choice> find_choices(const Facts& facts) {
  std::vector<Choice> choices;
  std::vector<Device> devices = {Device{}};
  if (facts.cuda.ok()) devices.push_back({DeviceType::kCuda, 0});
  for (const Device& device : devices) {
    for (const bench::Case& c : bench::default_cases()) {
      for (const std::int64_t M : {1, 512}) {
        Problem problem = bench::problem_of(c, {M, kSize, kSize}, Layout::kRowMajor);
        problem.device = device;
        problem.layout = best_layout(problem);
        const auto selection = select_kernel(problem);
        if (!selection.ok() && device.type == DeviceType::kCuda) continue;
        const std::string kernel(selection.ok() ? selection->kernel : "");
        choices.push_back({device, c, M, problem.layout, kernel, selection.status().message()});
      }
    }
  }
  return choices;
}

std::string to_string(const cuda::Gpu& gpu) {
  return format_text("{}, compute capability {}.{}, {} SMs, {} GiB", gpu.name, gpu.major, gpu.minor, gpu.num_sms,
                     gpu.memory >> 30);
}

std::string cuda_version(int version) {
  return version == 0 ? "none" : format_text("{}.{}", version / 1000, version % 1000 / 10);
}

void find_gpu_problems(const Facts& facts, std::vector<Finding>& found) {
  if (!facts.cuda.ok() && cuda::runtime_version() != 0 && !facts.driver.empty()) {
    found.push_back({format_text("the GPU cannot be used: {}", facts.cuda.message()),
                     "update the driver, or give this process a device (CUDA_VISIBLE_DEVICES)"});
  }
  for (const cuda::Gpu& gpu : cuda::gpus()) {
    if (gpu.has_code) continue;
    found.push_back({format_text("{} has compute capability {}.{}; this build has code for {}", gpu.name, gpu.major,
                                 gpu.minor, cuda::architectures()),
                     format_text("build with -DOCTAVO_CUDA_ARCHITECTURES={}{}", gpu.major, gpu.minor)});
  }
}

void find_thread_problems(const Facts& facts, std::vector<Finding>& found) {
  if (facts.threads_variable.empty()) {
    if (facts.quota && *facts.quota < facts.cpus) {
      found.push_back({format_text("the cgroup allows {} of {} CPUs, so {} threads are used", *facts.quota, facts.cpus,
                                   default_num_threads()),
                       "raise the container's CPU quota if more are meant to be used"});
    }
    return;
  }
  const auto threads = parse_num_threads(facts.threads_variable);
  if (!threads) {
    found.push_back(
        {format_text("OCTAVO_NUM_THREADS={} is no number from 1 to 4096 and is ignored", excerpt(facts.threads_variable)),
         "set a number, or unset it"});
  } else if (const int usable = std::min(facts.quota.value_or(facts.cpus), facts.cpus); *threads > usable) {
    found.push_back({format_text("OCTAVO_NUM_THREADS={}, but only {} CPUs may be used", *threads, usable),
                     "threads that wait for one another's CPU are slower than fewer threads: set at most that many"});
  }
}

std::vector<Finding> find_problems(const Facts& facts, const std::vector<Choice>& choices) {
  std::vector<Finding> found;
  if (!cpu_features().avx2) {
    found.push_back({"this processor has no instruction set that there are kernels for (x86-64 with AVX2)",
                     "products run on plain loops, right but slow: use another machine for large models"});
  }
  if (facts.huge_pages == "never") {
    found.push_back({"the system gives no huge pages, so reading weights takes longer",
                     format_text("as root: echo madvise > {}", kHugePageFile)});
  }
  if (!facts.kernel_variable.empty()) {
    found.push_back({format_text("OCTAVO_KERNEL={} forces a kernel", excerpt(facts.kernel_variable)),
                     "unset it, unless you are trying kernels"});
  }
  find_thread_problems(facts, found);
  find_gpu_problems(facts, found);
  std::string slow;
  for (const Choice& choice : choices) {
    const std::string what =
        format_text("{} with {} x at M = {}{}", to_string(choice.what.scheme), to_string(choice.what.activation), choice.M,
                    choice.device.type == DeviceType::kCuda ? " on the GPU" : "");
    if (choice.kernel.empty()) {
      found.push_back({format_text("{} cannot run: {}", what, choice.reason), "choose another scheme"});
    } else if (choice.kernel.ends_with("_reference") && (choice.device.type == DeviceType::kCuda || cpu_features().avx2)) {
      slow += (slow.empty() ? "" : ", ") + what;
    }
  }
  if (!slow.empty()) found.push_back({"plain loops compute " + slow, "choose other schemes where speed counts"});
  return found;
}

std::string format_cache(std::int64_t bytes) {
  return bytes >> 20 > 0 ? format_text("{} MiB", bytes >> 20) : format_text("{} KiB", bytes >> 10);
}

void print_report(const Facts& facts, const std::vector<Choice>& choices, const std::vector<Finding>& problems) {
  const auto or_unset = [](const std::string& text) { return text.empty() ? "not set" : excerpt(text); };
  std::string caches;
  for (const CacheLevel& cache : facts.caches) {
    caches += format_text("{}L{} {}", caches.empty() ? "" : ", ", cache.level, format_cache(cache.bytes));
    if (cache.count > 1) caches += format_text(" x {}", cache.count);
  }
  print_text("octavo      {}\n", OCTAVO_VERSION);
  print_text("processor   {}\n", cpu_name());
  print_text("features    {}\n", to_string(cpu_features()));
  print_text("caches      {}\n", caches.empty() ? "unknown" : caches);
  print_text("threads     {} (CPUs {}, quota {}, OCTAVO_NUM_THREADS {})\n", default_num_threads(), facts.cpus,
             facts.quota ? std::to_string(*facts.quota) : "none", or_unset(facts.threads_variable));
  print_text("huge pages  {}\n", facts.huge_pages);
  for (const cuda::Gpu& gpu : cuda::gpus()) print_text("gpu         {}\n", to_string(gpu));
  if (!facts.cuda.ok()) print_text("gpu         none: {}\n", facts.cuda.message());
  if (cuda::runtime_version() != 0) {
    print_text("cuda        {}, with code for {}\n", cuda_version(cuda::runtime_version()), cuda::architectures());
    print_text("driver      {}\n",
               facts.driver.empty() && cuda::driver_version() == 0
                   ? "none"
                   : format_text("{}, for CUDA up to {}", facts.driver.empty() ? "unknown" : facts.driver,
                                 cuda_version(cuda::driver_version())));
  }
  print_text("\nKernels for weights of {} x {} (OCTAVO_KERNEL {}):\n", kSize, kSize, or_unset(facts.kernel_variable));
  for (const Choice& choice : choices) {
    print_text("  {:<11} {:<9} M = {:<4} {:<26} weights {}\n", to_string(choice.what.scheme),
               to_string(choice.what.activation), choice.M, choice.kernel.empty() ? "none" : choice.kernel,
               to_string(choice.layout));
  }
  print_text("\n{}\n", problems.empty() ? "No problems found." : "Problems:");
  for (const Finding& finding : problems) print_text("  {}\n    {}\n", finding.problem, finding.advice);
}

Json to_json(const Facts& facts, const std::vector<Choice>& choices, const std::vector<Finding>& problems) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(excerpt(text)); };
  Json caches = Json::array();
  for (const CacheLevel& cache : facts.caches) {
    caches.push_back({{"level", cache.level}, {"bytes", cache.bytes}, {"count", cache.count}});
  }
  Json kernels = Json::array();
  for (const Choice& choice : choices) {
    kernels.push_back({{"device", choice.device.type == DeviceType::kCpu ? "cpu" : "cuda"},
                       {"scheme", to_string(choice.what.scheme)},
                       {"activation", to_string(choice.what.activation)},
                       {"M", choice.M},
                       {"kernel", or_null(choice.kernel)},
                       {"layout", to_string(choice.layout)}});
  }
  Json gpus = Json::array();
  for (const cuda::Gpu& gpu : cuda::gpus()) {
    gpus.push_back({{"name", gpu.name},
                    {"compute_capability", format_text("{}.{}", gpu.major, gpu.minor)},
                    {"sms", gpu.num_sms},
                    {"bytes", gpu.memory},
                    {"has_code", gpu.has_code}});
  }
  Json list = Json::array();
  for (const Finding& finding : problems) list.push_back({{"problem", finding.problem}, {"advice", finding.advice}});
  return {{"version", OCTAVO_VERSION},
          {"cpu", cpu_name()},
          {"features", to_string(cpu_features())},
          {"caches", caches},
          {"threads", default_num_threads()},
          {"cpus", facts.cpus},
          {"quota", facts.quota ? Json(*facts.quota) : Json(nullptr)},
          {"OCTAVO_NUM_THREADS", or_null(facts.threads_variable)},
          {"OCTAVO_KERNEL", or_null(facts.kernel_variable)},
          {"huge_pages", facts.huge_pages},
          {"gpus", gpus},
          {"gpu_reason", facts.cuda.ok() ? Json(nullptr) : Json(facts.cuda.message())},
          {"cuda_runtime", cuda_version(cuda::runtime_version())},
          {"cuda_driver", cuda_version(cuda::driver_version())},
          {"cuda_architectures", cuda::architectures()},
          {"driver", or_null(facts.driver)},
          {"N", kSize},
          {"K", kSize},
          {"kernels", kernels},
          {"problems", list}};
}

}  // namespace

int doctor(int argc, char** argv) {
  CLI::App app("Says what this machine has, what octavo uses of it, and what is wrong. Finding problems is no failure.",
               "octavo doctor");
  bool json = false;
  app.add_flag("--json", json, "as JSON");
  app.footer("Example:\n  octavo doctor");
  if (const auto code = parse(app, argc, argv)) return *code;
  const Facts facts = find_facts();
  const std::vector<Choice> choices = find_choices(facts);
  const std::vector<Finding> problems = find_problems(facts, choices);
  if (json) {
    print_text("{}", to_text(to_json(facts, choices, problems)));
  } else {
    print_report(facts, choices, problems);
  }
  return kOk;
}

}  // namespace octavo::cli
