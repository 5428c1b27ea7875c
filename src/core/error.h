// Making error messages: invalid("K is {}, but …", K).
#pragma once

#include <utility>

#include "core/format.h"
#include "octavo/status.h"

namespace octavo {

#define OCTAVO_ERROR_MAKER(function, code)                                       \
  template <class... Args>                                                       \
  Status function(fmt::format_string<Args...> format, Args&&... args) {          \
    return {StatusCode::code, format_text(format, std::forward<Args>(args)...)}; \
  }

OCTAVO_ERROR_MAKER(invalid, kInvalidArgument)
OCTAVO_ERROR_MAKER(unsupported, kUnsupported)
OCTAVO_ERROR_MAKER(not_found, kNotFound)
OCTAVO_ERROR_MAKER(already_exists, kAlreadyExists)
OCTAVO_ERROR_MAKER(data_loss, kDataLoss)
OCTAVO_ERROR_MAKER(io_error, kIoError)

#undef OCTAVO_ERROR_MAKER

}  // namespace octavo
