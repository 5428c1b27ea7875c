// All of the checkpoint room's file input and output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "octavo/status.h"

namespace octavo {

// An open file, closed with its owner. Offsets are explicit, so threads can share one.
class File {
 public:
  static Result<File> open(const std::string& path);
  // A new file for writing; fails when it exists.
  static Result<File> create(const std::string& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  Result<std::uint64_t> size() const;

  // All of out or an error; a file that ends before is data loss.
  Status read(std::uint64_t offset, std::span<std::byte> out) const;
  Status write(std::uint64_t offset, std::span<const std::byte> data) const;
  // Until it is on the disk.
  Status sync() const;
  // Takes the file for this process; fails when another has it. Given back with the file.
  Status lock() const;

 private:
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

// A whole file of at most max_bytes.
Result<std::string> read_file(const std::string& path, std::uint64_t max_bytes);
// A new file with this content, synced.
Status write_file(const std::string& path, std::string_view content);
Status copy_file(const std::string& from, const std::string& to);

// The entries of a directory until they are on the disk.
Status sync_directory(const std::string& path);
// Renames a directory; fails when the target exists.
Status rename_new(const std::string& from, const std::string& to);
// Exchanges two directories in one step where the system can, else by way of a third name.
Status exchange_directories(const std::string& a, const std::string& b);

}  // namespace octavo
