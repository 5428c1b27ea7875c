# One interface target, octavo_options, holds the flags that every file of the project is compiled with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(octavo_options INTERFACE)
# Results are specified to the bit: no contraction of a*b+c into an FMA, no reassociation, no flushing of subnormals.
set(flags -ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND flags -Wno-restrict)  # GCC 12 sees overlaps in std::string that are not there
endif()
if(OCTAVO_SANITIZE)
  list(APPEND flags -fsanitize=${OCTAVO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(octavo_options INTERFACE -fsanitize=${OCTAVO_SANITIZE})
endif()

# No build machine's paths in what is shipped, and the same bytes wherever it was built.
list(APPEND flags -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)
target_compile_options(octavo_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")

# nvcc has no switch for all of that: kernels that must be exact to the bit say so themselves, with __fmul_rn and its kind.
# lineinfo costs nothing at run time, and names the line in a profiler and under compute-sanitizer.
target_compile_options(octavo_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-Xcompiler=-Wall,-Wextra,-ffp-contract=off,-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=>")
