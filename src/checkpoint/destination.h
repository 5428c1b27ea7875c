// A directory that appears complete or not at all.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/file.h"
#include "octavo/status.h"

namespace octavo {

// Files are written to directory(), `path`.partial, which publish() renames to `path`. Unless published, it is removed with
// its owner. A marker file in it, locked, tells it from a user's directory and from one that another process is writing;
// what a killed process left is cleared.
class Destination {
 public:
  // Fails when `path` exists and may not be replaced. With `replace`, it must be a directory that holds a checkpoint and
  // not `source`.
  static Result<Destination> create(std::string path, bool replace, const std::string& source);

  Destination(Destination&& other) noexcept;
  Destination& operator=(Destination&&) = delete;
  ~Destination();

  const std::string& directory() const { return partial_; }
  // Files must be synced before.
  Status publish();

 private:
  Destination(std::string path, std::string replaced_beside, File marker)
      : path_(std::move(path)),
        partial_(path_ + ".partial"),
        replaced_beside_(std::move(replaced_beside)),
        marker_(std::move(marker)) {}

  std::string path_;
  std::string partial_;
  std::string replaced_beside_;  // the source, where `path` exists and will be replaced; else empty
  std::optional<File> marker_;   // none: published or moved from
};

}  // namespace octavo
