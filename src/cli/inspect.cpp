#include <algorithm>
#include <map>

#include "checkpoint/file.h"
#include "checkpoint/json.h"
#include "checkpoint/model_config.h"
#include "cli/text.h"
#include "cli/verb.h"
#include "core/format.h"
#include "octavo/checkpoint.h"

namespace octavo::cli {
namespace {

// What octavo.json says about weights, by the name of the module; empty where there is none.
std::map<std::string, std::string> read_schemes(const Checkpoint& checkpoint) {
  std::map<std::string, std::string> schemes;
  const std::string path = checkpoint.path() + "/octavo.json";
  const auto text =
      checkpoint.is_directory() ? read_file(path, std::uint64_t{100} << 20) : Result<std::string>(std::string());
  if (!text.ok() || text->empty()) return schemes;
  const auto json = parse_json(*text, path);
  if (!json.ok() || !json->is_object()) return schemes;
  const auto tensors = json->find("tensors");
  if (tensors == json->end() || !tensors->is_object()) return schemes;
  for (const auto& [name, facts] : tensors->items()) {
    const auto scheme = facts.is_object() ? facts.find("scheme") : facts.end();
    if (scheme == facts.end() || !scheme->is_string() || !name.ends_with(".weight")) continue;
    schemes[name.substr(0, name.size() - 7)] = excerpt(scheme->get<std::string>());
  }
  return schemes;
}

std::string scheme_of(const TensorInfo& tensor, const std::map<std::string, std::string>& schemes) {
  const std::size_t dot = tensor.name.rfind('.');
  if (dot == std::string::npos) return "";
  const std::string leaf = tensor.name.substr(dot + 1);
  const auto found = schemes.find(tensor.name.substr(0, dot));
  return (leaf == "weight" || leaf == "weight_packed") && found != schemes.end() ? found->second : "";
}

}  // namespace

int inspect(int argc, char** argv) {
  CLI::App app("Lists the tensors of a model directory or a .safetensors file, with their types, shapes, sizes and schemes.",
               "octavo inspect");
  std::string path;
  bool json = false;
  app.add_option("PATH", path, "a model directory or a .safetensors file")->required();
  app.add_flag("--json", json, "as JSON");
  app.footer("Example:\n  octavo inspect ./SmolLM2-135M-w4a16");
  if (const auto code = parse(app, argc, argv)) return *code;

  const auto checkpoint = Checkpoint::open(path);
  if (!checkpoint.ok()) return fail(app, checkpoint.status());
  Json quantization = nullptr;
  if (checkpoint->is_directory()) {
    const auto config = read_model_config(path);
    if (config.ok()) {
      quantization = config->value("quantization_config", Json(nullptr));
    } else if (config.status().code() != StatusCode::kNotFound) {
      return fail(app, config.status());
    }
  }
  const auto schemes = read_schemes(*checkpoint);
  std::uint64_t total = 0;
  for (const TensorInfo& tensor : checkpoint->tensors()) total += tensor.bytes;

  if (json) {
    Json files = Json::array();
    for (const CheckpointFile& file : checkpoint->files()) files.push_back({{"name", file.name}, {"bytes", file.bytes}});
    Json tensors = Json::array();
    for (const TensorInfo& tensor : checkpoint->tensors()) {
      const std::string scheme = scheme_of(tensor, schemes);
      tensors.push_back({{"name", tensor.name},
                         {"dtype", tensor.dtype},
                         {"shape", tensor.shape},
                         {"file", checkpoint->files()[tensor.file].name},
                         {"offset", tensor.offset},
                         {"bytes", tensor.bytes},
                         {"scheme", scheme.empty() ? Json(nullptr) : Json(scheme)}});
    }
    print_text("{}", to_text({{"path", path},
                              {"bytes", total},
                              {"files", files},
                              {"quantization_config", quantization},
                              {"tensors", tensors}}));
    return kOk;
  }
  constexpr std::size_t kMaxName = 120;
  std::size_t name_width = 4;
  std::size_t shape_width = 5;
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    name_width = std::max(name_width, excerpt(tensor.name, kMaxName).size());
    shape_width = std::max(shape_width, format_shape(tensor.shape).size());
  }
  print_text("{:{}}  {:7}  {:{}}  {:>9}  {}\n", "name", name_width, "dtype", "shape", shape_width, "size", "scheme");
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    print_text("{:{}}  {:7}  {:{}}  {:>9}  {}\n", excerpt(tensor.name, kMaxName), name_width, tensor.dtype,
               format_shape(tensor.shape), shape_width, format_bytes(tensor.bytes), scheme_of(tensor, schemes));
  }
  print_text("\n{} tensors, {}, {} file{}", checkpoint->tensors().size(), format_bytes(total), checkpoint->files().size(),
             checkpoint->files().size() == 1 ? "" : "s");
  if (quantization.is_object()) {
    const auto word = [&](const char* key) {
      const auto found = quantization.find(key);
      return found != quantization.end() && found->is_string() ? " " + excerpt(found->get<std::string>()) : "";
    };
    print_text("; quantized:{}{}", word("quant_method"), word("format"));
  }
  print_text("\n");
  return kOk;
}

}  // namespace octavo::cli
