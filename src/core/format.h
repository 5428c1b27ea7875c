// {fmt}, compiled once: other files see only its small header, and every build is several times faster for it.
#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <string>

namespace octavo {

std::string vformat_text(fmt::string_view format, fmt::format_args args);
void vprint_text(std::FILE* stream, fmt::string_view format, fmt::format_args args);

// As fmt::format and fmt::print.
template <class... Args>
std::string format_text(fmt::format_string<Args...> format, Args&&... args) {
  return vformat_text(format, fmt::make_format_args(args...));
}
template <class... Args>
void print_text(std::FILE* stream, fmt::format_string<Args...> format, Args&&... args) {
  vprint_text(stream, format, fmt::make_format_args(args...));
}
template <class... Args>
void print_text(fmt::format_string<Args...> format, Args&&... args) {
  vprint_text(stdout, format, fmt::make_format_args(args...));
}

}  // namespace octavo
