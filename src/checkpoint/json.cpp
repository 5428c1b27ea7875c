#include "checkpoint/json.h"

#include <set>
#include <vector>

#include "core/error.h"

namespace octavo {
namespace {

constexpr std::size_t kMaxDepth = 64;

// Walks through the text without building anything, and stops at the first thing that breaks a limit.
class Limits final : public nlohmann::json_sax<Json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return push(); }
  bool end_object() override { return pop(); }
  bool start_array(std::size_t) override { return push(); }
  bool end_array() override { return pop(); }
  bool key(string_t& key) override {
    if (keys_.back().insert(key).second) return true;
    error_ = format_text("the key \"{}\" is there twice", excerpt(key));
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error_ = format_text("is not valid JSON at byte {}", position);
    return false;
  }

 private:
  bool push() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    error_ = format_text("is nested more than {} levels deep", kMaxDepth);
    return false;
  }
  bool pop() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of each open object or array
  std::string error_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  Limits limits;
  if (!Json::sax_parse(text, &limits)) return data_loss("{}: {}", what, limits.error());
  return Json::parse(text, nullptr, false);
}

std::string to_text(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string excerpt(std::string_view text, std::size_t max_bytes) {
  std::string result(text.substr(0, max_bytes));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (text.size() > max_bytes) result += "…";
  return result;
}

}  // namespace octavo
