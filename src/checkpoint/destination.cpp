#include "checkpoint/destination.h"

#include <filesystem>
#include <utility>

#include "checkpoint/json.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMarker = ".octavo-partial";
constexpr std::string_view kTemplates = "additional_chat_templates";  // the one folder that a checkpoint has

bool is_within(const fs::path& inner, const fs::path& outer) {
  for (fs::path path = inner;; path = path.parent_path()) {
    if (path == outer) return true;
    if (path == path.parent_path()) return false;
  }
}

// --force is for an earlier result, not for whatever a mistyped path names.
Status check_replaceable(const std::string& path, const std::string& source) {
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(path, error))) return already_exists("{}: exists and is not a directory", path);
  if (is_within(fs::canonical(source, error), fs::canonical(path, error))) {
    return invalid("{}: holds the source itself; choose another destination", path);
  }
  bool empty = true;
  bool has_config = false;
  for (fs::directory_iterator entry(path, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    empty = false;
    const std::string name = entry->path().filename().string();
    if (entry->is_directory(error) && name != kTemplates) {
      return already_exists("{}: exists and has the folder {}, so it will not be replaced; remove it or choose another name",
                            path, excerpt(name));
    }
    has_config |= name == "config.json" || name == "octavo.json";
  }
  if (error) return io_error("{}: cannot be read: {}", path, error.message());
  if (empty || has_config) return {};
  return already_exists("{}: exists and holds no checkpoint, so it will not be replaced; remove it or choose another name",
                        path);
}

std::string marker_in(const std::string& directory) { return directory + "/" + std::string(kMarker); }

// Everything but the marker, which goes last: without it nobody would know whose the rest is.
Status clear(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().filename() == kMarker) continue;
    fs::remove_all(entry.path(), error);
    if (error) return io_error("{}: cannot be removed: {}", entry.path().string(), error.message());
  }
  return {};
}

// The marker of a new or abandoned partial directory, locked; the directory holds nothing else.
Result<File> take_partial(const std::string& partial) {
  std::error_code error;
  const std::string marker_path = marker_in(partial);
  const bool created = fs::create_directory(partial, error);
  if (error) return io_error("{}: cannot be created: {}", partial, error.message());
  if (created || fs::is_empty(partial, error)) {
    OCTAVO_ASSIGN_OR_RETURN(File marker, File::create(marker_path));
    OCTAVO_RETURN_IF_ERROR(marker.lock());
    return marker;
  }
  auto marker = File::open(marker_path);
  if (!marker.ok()) return already_exists("{}: exists and was not left by octavo; remove it", partial);
  OCTAVO_RETURN_IF_ERROR(marker->lock());
  OCTAVO_RETURN_IF_ERROR(clear(partial));
  return marker;
}

}  // namespace

Result<Destination> Destination::create(std::string path, bool replace, const std::string& source) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (path.empty() || path == "/" || fs::path(path).filename() == "." || fs::path(path).filename() == "..") {
    return invalid("'{}' does not name a new directory", path);
  }
  std::error_code error;
  const std::string parent = fs::absolute(path, error).parent_path().string();
  if (!fs::is_directory(parent, error)) return not_found("{}: no such directory, so {} cannot be created", parent, path);
  const bool exists = fs::exists(fs::symlink_status(path, error));
  if (exists) {
    if (!replace) return already_exists("{}: exists; choose another name, or --force replaces it", path);
    OCTAVO_RETURN_IF_ERROR(check_replaceable(path, source));
  }
  OCTAVO_ASSIGN_OR_RETURN(File marker, take_partial(path + ".partial"));
  return Destination(std::move(path), exists ? source : "", std::move(marker));
}

Destination::Destination(Destination&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::move(other.partial_)),
      replaced_beside_(std::move(other.replaced_beside_)),
      marker_(std::exchange(other.marker_, std::nullopt)) {}

Destination::~Destination() {
  std::error_code ignored;
  if (marker_) fs::remove_all(partial_, ignored);
}

Status Destination::publish() {
  std::error_code error;
  const bool replaces = !replaced_beside_.empty();
  OCTAVO_RETURN_IF_ERROR(sync_directory(partial_));
  if (replaces) {
    OCTAVO_RETURN_IF_ERROR(check_replaceable(path_, replaced_beside_));  // it may be another by now
    // What is replaced becomes the partial directory, which a marker must tell from a user's should this process die.
    fs::remove(marker_in(path_), error);
    OCTAVO_RETURN_IF_ERROR(File::create(marker_in(path_)).status());
    if (Status status = exchange_directories(partial_, path_); !status.ok()) {
      fs::remove(marker_in(path_), error);
      return status;
    }
  } else {
    OCTAVO_RETURN_IF_ERROR(rename_new(partial_, path_));
  }
  marker_.reset();  // published: from here on partial_ is at most what was replaced
  fs::remove(marker_in(path_), error);
  if (error) return io_error("{}: cannot be removed: {}", marker_in(path_), error.message());
  OCTAVO_RETURN_IF_ERROR(sync_directory(path_));
  OCTAVO_RETURN_IF_ERROR(sync_directory(fs::absolute(path_, error).parent_path().string()));
  if (!replaces) return {};
  // Only now, when the exchange is on the disk.
  OCTAVO_RETURN_IF_ERROR(clear(partial_));
  fs::remove_all(partial_, error);
  if (error) return io_error("{}: is what was replaced, and cannot be removed: {}", partial_, error.message());
  return {};
}

}  // namespace octavo
