// Errors are values: every function of the library that can fail returns a Status or a Result<T>, and throws nothing.
#pragma once

#include <cassert>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace octavo {

enum class StatusCode {
  kOk,
  kInvalidArgument,  // the caller passed something that can never work: shape, dtype, scheme
  kUnsupported,      // it means something, but no kernel or format here can do it
  kNotFound,         // a file, tensor or kernel of that name does not exist
  kAlreadyExists,    // a destination that would be overwritten
  kDataLoss,         // a file whose content breaks its format's rules
  kIoError,          // the operating system refused a read, write or rename
  kCancelled,        // interrupted by the caller
};

// The name of a code, e.g. "invalid argument".
std::string_view to_string(StatusCode code);

// The outcome of an operation. The message is one line: what was wrong, where, and what would be right.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "prefix: " before its message; an ok status stays as it is.
  Status with_context(std::string_view prefix) && {
    if (!ok()) message_.insert(0, std::string(prefix) + ": ");
    return std::move(*this);
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

// A value, or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status error) : state_(std::move(error)) { assert(!std::get<Status>(state_).ok()); }

  bool ok() const { return std::holds_alternative<T>(state_); }
  // Ok when there is a value.
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }

  // The value. Calling it without one is a programming error.
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace octavo
