// Passing errors on.
#pragma once

#include "octavo/status.h"

#define OCTAVO_CONCAT_(a, b) a##b
#define OCTAVO_CONCAT(a, b) OCTAVO_CONCAT_(a, b)

// Returns the Status of an expression from the enclosing function unless it is ok.
#define OCTAVO_RETURN_IF_ERROR(expression)                                    \
  do {                                                                        \
    if (::octavo::Status octavo_status = (expression); !octavo_status.ok()) { \
      return octavo_status;                                                   \
    }                                                                         \
  } while (false)

// OCTAVO_ASSIGN_OR_RETURN(auto x, f()): x is f()'s value, or its error is returned from the enclosing function.
#define OCTAVO_ASSIGN_OR_RETURN(declaration, expression) \
  OCTAVO_ASSIGN_OR_RETURN_(OCTAVO_CONCAT(octavo_result_, __LINE__), declaration, expression)
#define OCTAVO_ASSIGN_OR_RETURN_(result, declaration, expression) \
  auto result = (expression);                                     \
  if (!(result).ok()) return (result).status();                   \
  declaration = std::move(result).value()
