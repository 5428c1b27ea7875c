#include "checkpoint/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace {

// One call transfers less than 2 GiB on Linux.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 30;

std::string last_error() { return std::strerror(errno); }

}  // namespace

Result<File> File::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return not_found("{}: no such file", path);
    return io_error("{}: cannot be opened: {}", path, last_error());
  }
  File file(fd, path);
  struct stat info = {};
  if (::fstat(fd, &info) != 0) return io_error("{}: {}", path, last_error());
  if (!S_ISREG(info.st_mode)) return invalid("{}: is not a regular file", path);
  return file;
}

Result<File> File::create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return io_error("{}: cannot be created: {}", path, last_error());
  return File(fd, path);
}

File::File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::uint64_t> File::size() const {
  struct stat info = {};
  if (::fstat(fd_, &info) != 0) return io_error("{}: {}", path_, last_error());
  return static_cast<std::uint64_t>(info.st_size);
}

Status File::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), std::min(out.size(), kMaxTransfer), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("{}: reading at offset {} failed: {}", path_, offset, last_error());
    if (n == 0) return data_loss("{}: ends at offset {}, {} bytes short; it was truncated", path_, offset, out.size());
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status File::write(std::uint64_t offset, std::span<const std::byte> data) const {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd_, data.data(), std::min(data.size(), kMaxTransfer), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return io_error("{}: writing at offset {} failed: {}", path_, offset, last_error());
    data = data.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status File::sync() const {
  if (::fsync(fd_) != 0) return io_error("{}: syncing failed: {}", path_, last_error());
  return {};
}

Status File::lock() const {
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return {};
  if (errno == EWOULDBLOCK) return already_exists("{}: another process is writing there", path_);
  return io_error("{}: cannot be locked: {}", path_, last_error());
}

Result<std::string> read_file(const std::string& path, std::uint64_t max_bytes) {
  OCTAVO_ASSIGN_OR_RETURN(const File file, File::open(path));
  OCTAVO_ASSIGN_OR_RETURN(const std::uint64_t size, file.size());
  if (size > max_bytes) return data_loss("{}: has {} bytes; at most {} are expected", path, size, max_bytes);
  std::string content(size, '\0');
  OCTAVO_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(content))));
  return content;
}

Status write_file(const std::string& path, std::string_view content) {
  OCTAVO_ASSIGN_OR_RETURN(const File file, File::create(path));
  OCTAVO_RETURN_IF_ERROR(file.write(0, std::as_bytes(std::span(content))));
  return file.sync();
}

Status copy_file(const std::string& from, const std::string& to) {
  OCTAVO_ASSIGN_OR_RETURN(const File in, File::open(from));
  OCTAVO_ASSIGN_OR_RETURN(const File out, File::create(to));
  OCTAVO_ASSIGN_OR_RETURN(const std::uint64_t size, in.size());
  std::vector<std::byte> block(std::min<std::uint64_t>(size, std::uint64_t{1} << 20));
  for (std::uint64_t offset = 0; offset < size; offset += block.size()) {
    const auto part = std::span(block).first(std::min<std::uint64_t>(block.size(), size - offset));
    OCTAVO_RETURN_IF_ERROR(in.read(offset, part));
    OCTAVO_RETURN_IF_ERROR(out.write(offset, part));
  }
  return out.sync();
}

Status sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return io_error("{}: cannot be opened: {}", path, last_error());
  const int result = ::fsync(fd);
  const std::string error = last_error();
  ::close(fd);
  // Some file systems have no such operation on directories (EINVAL) and need none.
  if (result != 0 && errno != EINVAL) return io_error("{}: syncing failed: {}", path, error);
  return {};
}

Status rename_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno == EEXIST) return already_exists("{}: exists", to);
  // A file system without the flag: rename() replaces an empty directory at most, never one with files.
  if (errno == EINVAL && ::rename(from.c_str(), to.c_str()) == 0) return {};
  return io_error("{}: cannot be renamed to {}: {}", from, to, last_error());
}

Status exchange_directories(const std::string& a, const std::string& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return {};
  if (errno != EINVAL) return io_error("{}: cannot be exchanged with {}: {}", a, b, last_error());
  const std::string old = b + ".old";
  OCTAVO_RETURN_IF_ERROR(rename_new(b, old));
  if (Status status = rename_new(a, b); !status.ok()) {
    if (::rename(old.c_str(), b.c_str()) != 0) {
      return io_error("{}; the previous directory is at {}", status.message(), old);
    }
    return status;
  }
  return rename_new(old, a);
}

}  // namespace octavo
