# Libraries come from the system (scripts/deps.sh installs Debian's). All are used as headers only, so neither the program
# nor the library depends on any of them at run time.
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.9 QUIET)
find_package(CLI11 2.1 QUIET)
find_package(fmt 8 QUIET)
find_path(XXHASH_INCLUDE_DIR xxhash.h)
if(OCTAVO_TESTS)
  find_package(GTest QUIET)
endif()

set(missing "")
foreach(found IN ITEMS nlohmann_json:nlohmann_json_FOUND CLI11:CLI11_FOUND fmt:fmt_FOUND xxhash:XXHASH_INCLUDE_DIR)
  string(REPLACE ":" ";" found ${found})
  list(GET found 0 name)
  list(GET found 1 variable)
  if(NOT ${variable})
    list(APPEND missing ${name})
  endif()
endforeach()
if(OCTAVO_TESTS AND NOT GTest_FOUND)
  list(APPEND missing GTest)
endif()
if(missing)
  list(JOIN missing ", " missing)
  message(FATAL_ERROR "Not found: ${missing}. Run 'make deps', or on Debian and Ubuntu: apt-get install "
                      "nlohmann-json3-dev libcli11-dev libfmt-dev libxxhash-dev libgtest-dev")
endif()

# Only core/format.cpp compiles {fmt}; everything else sees its declarations.
add_library(fmt_headers INTERFACE)
target_include_directories(fmt_headers SYSTEM INTERFACE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
