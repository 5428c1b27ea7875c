#include <algorithm>
#include <cmath>
#include <csignal>
#include <map>

#include "checkpoint/json.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "cli/verb.h"
#include "core/format.h"
#include "octavo/checkpoint.h"

namespace octavo::cli {
namespace {

struct Arguments {
  std::string source;
  std::string destination;
  std::string scheme;
  std::string clip = "absmax";
  std::string scale_dtype;
  std::string group_size;
  double percentile = QuantizeCheckpointOptions{}.percentile;
  std::vector<std::string> ignore;
  std::vector<std::string> only;
  std::vector<std::string> keep;
  std::vector<std::string> layers;
  std::uint64_t memory = QuantizeCheckpointOptions{}.memory_limit;
  int threads = 0;
  bool force = false;
  bool dry_run = false;
  bool json = false;
  bool quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("SRC", a.source, "the model: a directory with config.json and safetensors files")->required();
  app.add_option("DST", a.destination, "the new directory")->required();
  app.add_option("--scheme", a.scheme, "w8a16, w8a8, w4a16-g64, w4a16-g128-asym, llm.int8 …")->required();
  app.add_option("--clip", a.clip, "how the range of a scale is chosen")
      ->check(CLI::IsMember({"absmax", "mse", "percentile"}))
      ->capture_default_str();
  app.add_option("--percentile", a.percentile, "of |w|, for --clip percentile")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--scale-dtype", a.scale_dtype, "type of stored scales (default: each weight's own)")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  app.add_option("--group-size", a.group_size, "auto: the largest of 128, 64, 32 that divides every layer")
      ->check(CLI::IsMember({"auto"}));
  app.add_option("--ignore", a.ignore, "leave the layers that this regular expression finds")->allow_extra_args(false);
  app.add_option("--only", a.only, "quantize nothing but the layers that it finds")->allow_extra_args(false);
  app.add_option("--layer", a.layers, "REGEX=SCHEME: another scheme for some layers; the last that matches wins")
      ->allow_extra_args(false);
  app.add_option("--keep", a.keep, "leave first, last (decoder layers), attn-out (attention output projections)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"first", "last", "attn-out"}));
  app.add_option("--memory", a.memory, "for blocks in flight, e.g. 512M, 2G (default: 512M)")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--threads", a.threads, "default: the CPUs this process may use")->check(CLI::Range(1, 4096));
  app.add_flag("--force", a.force, "replace an existing DST, once the new one is complete");
  app.add_flag("--dry-run", a.dry_run, "print the plan and write nothing");
  app.add_flag("--json", a.json, "print the result as JSON");
  app.add_flag("--quiet", a.quiet, "print errors only");
  app.footer(
      "DST is a compressed-tensors checkpoint that transformers, vLLM and SGLang load.\n"
      "Embeddings, norms, routers and lm_head stay as they are; --only or --layer can name lm_head.\n\n"
      "Example:\n  octavo quantize ./SmolLM2-135M ./SmolLM2-135M-w4a16 --scheme w4a16-g64 --layer 'down_proj=w8a16'");
}

Result<PlanOptions> plan_options(const Arguments& a) {
  PlanOptions options;
  auto scheme = parse_scheme(a.scheme);
  if (!scheme.ok()) return scheme.status();
  options.scheme = *scheme;
  options.auto_group_size = !a.group_size.empty();
  if (!a.scale_dtype.empty()) options.scale_dtype = parse_dtype(a.scale_dtype).value();
  options.ignore = a.ignore;
  options.only = a.only;
  for (const std::string& layer : a.layers) {
    const std::size_t equals = layer.rfind('=');  // a scheme has none, a regular expression may
    if (equals == std::string::npos) {
      return Status(StatusCode::kInvalidArgument, format_text("--layer '{}' is not of the form REGEX=SCHEME", layer));
    }
    auto other = parse_scheme(std::string_view(layer).substr(equals + 1));
    if (!other.ok()) return other.status().with_context("--layer");
    options.layers.push_back({layer.substr(0, equals), *other});
  }
  const auto keeps = [&](std::string_view what) { return std::find(a.keep.begin(), a.keep.end(), what) != a.keep.end(); };
  options.keep_first = keeps("first");
  options.keep_last = keeps("last");
  options.keep_attention_output = keeps("attn-out");
  return options;
}

std::string ratio(const QuantizationPlan& plan) {
  return format_text(
      "{} -> {} ({:.2f}x smaller)", format_bytes(plan.bytes_before), format_bytes(plan.bytes_after),
      static_cast<double>(plan.bytes_before) / static_cast<double>(std::max<std::uint64_t>(plan.bytes_after, 1)));
}

std::size_t count_quantized(const QuantizationPlan& plan) {
  return static_cast<std::size_t>(std::count_if(plan.layers.begin(), plan.layers.end(),
                                                [](const LayerPlan& layer) { return layer.scheme.has_value(); }));
}

Json plan_json(const QuantizationPlan& plan) {
  Json layers = Json::array();
  for (const LayerPlan& layer : plan.layers) {
    layers.push_back({{"name", layer.name},
                      {"scheme", layer.scheme ? Json(to_string(*layer.scheme)) : Json(nullptr)},
                      {"reason", layer.scheme ? Json(nullptr) : Json(layer.reason)},
                      {"bytes_before", layer.bytes_before},
                      {"bytes_after", layer.bytes_after}});
  }
  return {{"scheme", to_string(plan.scheme)},
          {"bytes_before", plan.bytes_before},
          {"bytes_after", plan.bytes_after},
          {"layers", layers}};
}

void print_plan(const QuantizationPlan& plan) {
  std::size_t width = 5;
  for (const LayerPlan& layer : plan.layers) width = std::max(width, layer.name.size());
  print_text("{:{}}  {:>9}  {:>9}  {}\n", "layer", width, "before", "after", "scheme");
  for (const LayerPlan& layer : plan.layers) {
    print_text("{:{}}  {:>9}  {:>9}  {}\n", excerpt(layer.name, 512), width, format_bytes(layer.bytes_before),
               format_bytes(layer.bytes_after), layer.scheme ? to_string(*layer.scheme) : "stays: " + layer.reason);
  }
  print_text("\n{} of {} layers are quantized; {}\n", count_quantized(plan), plan.layers.size(), ratio(plan));
}

// Layers that stay for a reason the user did not give.
void print_left(const QuantizationPlan& plan) {
  std::map<std::string, std::vector<std::string>> left;
  for (const LayerPlan& layer : plan.layers) {
    if (!layer.scheme && !layer.reason.starts_with("--") && !layer.reason.starts_with("not in")) {
      left[layer.reason].push_back(layer.name);
    }
  }
  for (const auto& [reason, names] : left) {
    print_text("left as they are ({}): {}{}\n", reason, excerpt(names.front(), 512),
               names.size() > 1 ? format_text(" and {} more", names.size() - 1) : "");
  }
}

void print_report(const Arguments& a, const QuantizationPlan& plan, const QuantizationReport& report, double seconds) {
  print_text("{}: {}, {} of {} layers, {}\n", a.destination, to_string(plan.scheme), count_quantized(plan),
             plan.layers.size(), ratio(plan));
  print_left(plan);
  const auto worst = std::min_element(report.tensors.begin(), report.tensors.end(),
                                      [](const TensorReport& x, const TensorReport& y) { return x.snr_db < y.snr_db; });
  print_text("lowest signal-to-noise ratio: {:.1f} dB ({})\n{:.1f} s, {:.2f} GB/s\n", worst->snr_db, worst->name, seconds,
             static_cast<double>(report.bytes_read) / 1e9 / std::max(seconds, 1e-9));
}

Json report_json(const Arguments& a, const QuantizationPlan& plan, const QuantizationReport& report, double seconds) {
  Json json = plan_json(plan);
  json["destination"] = a.destination;
  json["bytes_written"] = report.bytes_written;
  json["seconds"] = seconds;
  Json tensors = Json::array();
  for (const TensorReport& tensor : report.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"scheme", to_string(tensor.scheme)},
                       {"snr_db", std::isfinite(tensor.snr_db) ? Json(tensor.snr_db) : Json(nullptr)},
                       {"max_abs_error", tensor.max_abs_error}});
  }
  json["tensors"] = std::move(tensors);
  return json;
}

volatile std::sig_atomic_t interrupted = 0;

// The first signal ends the job in good order; a second one, the process.
void watch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

int quantize(int argc, char** argv) {
  CLI::App app("Quantizes the Linear weights of a model into a new directory.", "octavo quantize");
  Arguments a;
  declare(app, a);
  if (const auto code = parse(app, argc, argv)) return *code;
  const auto options = plan_options(a);
  if (!options.ok()) return usage_error(app, options.status().message());

  const auto source = Checkpoint::open(a.source);
  if (!source.ok()) return fail(app, source.status());
  const auto plan = plan_quantization(*source, *options);
  if (!plan.ok()) return fail(app, plan.status());
  if (a.dry_run) {
    if (a.json) {
      print_text("{}", to_text(plan_json(*plan)));
    } else if (!a.quiet) {
      print_plan(*plan);
    }
    return kOk;
  }

  ProgressLine line;
  watch_signals();
  QuantizeCheckpointOptions how;
  how.clip = a.clip == "mse" ? Clip::kMse : a.clip == "percentile" ? Clip::kPercentile : Clip::kAbsmax;
  how.percentile = a.percentile;
  how.memory_limit = a.memory;
  how.replace = a.force;
  how.progress = [&](const Progress& progress) {
    if (!a.quiet) line.show(progress);
    return interrupted == 0;
  };
  const auto pool = make_thread_pool(a.threads > 0 ? a.threads : default_num_threads());
  const auto report = quantize_checkpoint(*source, *plan, a.destination, how, *pool);
  line.clear();
  if (!report.ok()) return fail(app, report.status());
  if (a.json) {
    print_text("{}", to_text(report_json(a, *plan, *report, line.seconds())));
  } else if (!a.quiet) {
    print_report(a, *plan, *report, line.seconds());
  }
  return kOk;
}

}  // namespace octavo::cli
